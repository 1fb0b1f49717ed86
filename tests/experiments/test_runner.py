"""The runner against kills, other runners and bad input; its tables against plain numbers."""

import argparse
import json
import math
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import processes
from configs import amoebanet, methods
from experiments import runner, table1, table2, table3, tables
from experiments.runner import Row, Run

FAKE = pathlib.Path(__file__).parent / "fake_train.py"
ROWS = [Row("baseline", "baseline", paper={"top1": (76.51, 0.07)}), Row("dropblock", "dropblock")]


def arguments(workdir, *words):
    options = runner.parser(None, str(workdir), seeds=(0, 1))
    return runner.parse(options, ["--dataset", "mnist", *words])


def runs_of(workdir, *words):
    return runner.make_runs(ROWS, arguments(workdir, *words))


def steps(run):
    return [int(line) for line in (run.workdir / "trace.txt").read_text().split()]


def files(workdir, runs):
    tables.write_table("table", runs, ("top1", "top5"), argparse.Namespace(workdir=workdir))
    found = {path.suffix: path.read_text() for path in workdir.glob("table.*")}
    content = json.loads(found.pop(".json"))
    for run in content["runs"]:
        del run["result"]["seconds"]
    del content["hours"]
    return found | {".json": content}


def test_arguments_of_runs(tmp_path):
    rows = [ROWS[0], Row("b", "dropblock", {"drop.keep_prob": 0.8, "drop.sites": ("conv",)})]
    words = ["--config.epochs", "3", "--config.data.dir=x y", "--seeds", "4", "2"]
    given = arguments(tmp_path, *words, "--set", "b:drop.block_size=5", "baseline:model.depth=34")
    runs = runner.make_runs(rows, given)
    assert [run.name for run in runs] == ["baseline/seed4", "b/seed4", "baseline/seed2", "b/seed2"]
    config = processes.ROOT / "configs" / "mnist_resnet.py"
    common = ("--config.epochs=3", "--config.data.dir=x y")
    assert runs[0].arguments == (
        f"--config={config}:baseline",
        *common,
        "--config.model.depth=34",
        "--config.seed=4",
    )
    assert runs[3].arguments == (
        f"--config={config}:dropblock",
        *common,
        "--config.drop.keep_prob=0.8",
        "--config.drop.sites=('conv',)",
        "--config.drop.block_size=5",
        "--config.seed=2",
    )
    assert runs[3].workdir == tmp_path / "b" / "seed2"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--shard", "2/2"], "--shard must be i/n with i from 0 to n - 1, got 2/2"),
        (["--epochs", "3"], "unrecognized argument: --epochs"),
        (["--config.epochs"], "--config.epochs needs a value"),
        (["--config.seed=3"], "the seeds are given by --seeds"),
        (["--dataset", "imagnet"], "--dataset imagnet: there is no"),
        (["--set", "dropblok:drop.keep_prob=1"], "expected ROW:FIELD=VALUE, ROW one of"),
        (["--set", "dropblock:drop.keep_prbo=1"], "there is no config field 'keep_prbo' here"),
        (["--config.drop.kep=1"], "baseline/seed0: error: there is no config field 'kep' here"),
        (["--config.drop.keep_prob=much"], "baseline/seed0: error: flag --config.drop.keep_prob"),
        (["--rows", "dropblok"], "no such row; there are baseline, dropblock"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, capsys, words, message):
    with pytest.raises(SystemExit) as stopped:
        runs_of(tmp_path, *words)
    assert message in capsys.readouterr().err + str(stopped.value)


def test_finished_runs_are_not_run_again(tmp_path, capsys):
    runs = runs_of(tmp_path)
    assert runner.run_all(runs, script=FAKE) == 0
    out = capsys.readouterr().out
    assert re.search(r"\[4/4\] dropblock/seed1: best top1 7\d\.\d\d, .* ETA < 1 min", out)
    assert runner.run_all(runs, script=FAKE) == 0
    assert "4 of 4 runs are finished already" in capsys.readouterr().out
    assert all(steps(run) == list(range(1, 11)) for run in runs)


def test_a_run_is_finished_only_with_its_result(tmp_path):
    """A kill may come between the last line and the result."""
    (run, *_) = runs = runs_of(tmp_path, "--rows", "baseline", "--seeds", "0")
    runner.run_all(runs, script=FAKE)
    assert run.fraction() == 1
    (run.workdir / "result.json").unlink()
    assert 0.9 < run.fraction() < 1
    assert runner.run_all(runs, script=FAKE) == 0 and run.result() is not None
    assert steps(run) == list(range(1, 11))


def test_shards_share_the_runs(tmp_path):
    runs = runs_of(tmp_path, "--seeds", "0", "1", "2")
    done = []
    for shard in range(4):
        runner.run_all(runs, (shard, 4), script=FAKE)
        done.append({run.name for run in runs if run.result()})
    assert [len(names) for names in done] == [2, 4, 5, 6]


def test_a_folder_of_other_arguments_is_refused(tmp_path):
    runner.run_all(runs_of(tmp_path), script=FAKE)
    with pytest.raises(SystemExit, match=r"another config \(epochs was 36.0, is 3.0\): give"):
        runs_of(tmp_path, "--config.epochs=3")
    runs_of(tmp_path, "--config.epochs=36")  # the same in other words


def test_a_damaged_file_of_the_arguments(tmp_path):
    """The run that it is of says so; others are not taken for it."""
    (before, *_) = runs_of(tmp_path, "--rows", "baseline", "--seeds", "0")
    runner.run_all([before], script=FAKE)
    (before.workdir / "run.json").write_text("{")
    with pytest.raises(SystemExit, match=r"baseline/seed0: error: .*run.json is damaged"):
        runs_of(tmp_path)
    same = runner.make_runs([Row("same", "baseline")], arguments(tmp_path, "--seeds", "0"))
    assert runner.run_all(same, script=FAKE) == 0
    assert same[0].workdir.resolve() == same[0].workdir and same[0].result() is not None


def test_a_run_of_the_same_config_is_linked(tmp_path):
    before = runs_of(tmp_path)
    runner.run_all(before, script=FAKE)
    same = Row("same", "baseline", {"drop.kind": "dropblock", "drop.keep_prob": 0.9})
    rows = [same, Row("other", "dropblock", {"drop.keep_prob": 0.8})]
    runs = runner.make_runs(rows, arguments(tmp_path))
    assert runs[0].result() == before[1].result()  # --collect runs nothing, and has it too
    assert runner.run_all(runs, script=FAKE) == 0
    linked = [run.workdir.resolve() for run in runs]
    assert linked == [before[1].workdir, runs[1].workdir, before[3].workdir, runs[3].workdir]
    runner.make_runs(rows, arguments(tmp_path))  # their folders hold what they say
    # What a link leads to may be removed: then it is run.
    shutil.rmtree(tmp_path / "dropblock")
    runs = runner.make_runs(rows, arguments(tmp_path))
    assert runner.run_all(runs, script=FAKE) == 0
    assert runs[0].workdir.resolve() == runs[0].workdir and runs[0].result() is not None


def test_what_was_waited_for_must_be_of_the_same_config(tmp_path, capsys, monkeypatch):
    """Its runner was killed before the first line, and the next is of other fields."""
    runs = runs_of(tmp_path, "--config.epochs=3")  # nothing is there yet
    monkeypatch.setenv("SLEEP", "0.2")
    process = start(tmp_path)
    wait_for((tmp_path / "baseline" / "seed0" / "lock").exists)
    wait_for(lambda: (tmp_path / "baseline" / "seed0" / "lock").read_text())
    process.kill()
    process.communicate()
    with pytest.raises(SystemExit, match="another config"):
        runner.run_all(runs, script=FAKE)
    assert "is being trained by another process" in capsys.readouterr().out
    assert json.loads((runs[0].workdir / "run.json").read_text())["epochs"] == 36


def test_bad_input_ends_the_sweep_and_divergence_does_not(tmp_path, capsys):
    bad = runs_of(tmp_path / "bad", "--config.drop.keep_prob=2")
    with pytest.raises(SystemExit, match="baseline/seed0: error: keep_prob must be in"):
        runner.run_all(bad, script=FAKE)
    runs_of(tmp_path / "bad", "--config.drop.keep_prob=0.2")  # may be put right
    diverging = runs_of(tmp_path, "--set", "baseline:schedule.learning_rate=1e30")
    assert runner.run_all(diverging, script=FAKE) == 1
    assert "baseline/seed0 failed with exit code 3: error: loss is nan" in capsys.readouterr().out
    assert [bool(run.result()) for run in diverging] == [False, True, False, True]
    records = tables.collect(diverging, ("top1",))
    assert [record["seeds"] for record in records] == [0, 2]
    assert records[1]["difference"] is None


COMMAND = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
from test_runner import FAKE, runs_of
from experiments import runner
sys.exit(runner.run_all(runs_of(sys.argv[1]), script=FAKE))
"""


def start(workdir):
    """The runner in a process of its own."""
    folder = str(pathlib.Path(__file__).parent)
    code = COMMAND.format(root=str(processes.ROOT), tests=folder)
    environment = {"SLEEP": "0.05"} | os.environ | {"PYTHONPATH": str(processes.ROOT / "tests")}
    return subprocess.Popen(
        [sys.executable, "-c", code, str(workdir)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_kills_change_nothing_in_the_table(tmp_path):
    whole = runs_of(tmp_path / "whole")
    runner.run_all(whole, script=FAKE)

    workdir = tmp_path / "killed"
    runs = runs_of(workdir)
    # The runner and its run, in the first run.
    process = start(workdir)
    wait_for(lambda: runs[0].fraction() >= 0.3)
    process.kill()
    os.kill(int((runs[0].workdir / "lock").read_text()), signal.SIGKILL)
    process.communicate()
    assert runs[0].result() is None
    # The runner alone, in the third: what it had begun goes on, and the next one waits for it.
    process = start(workdir)
    wait_for(lambda: 0.1 <= runs[2].fraction() < 1)
    process.kill()
    process.communicate()
    process = start(workdir)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    for run in runs:
        assert steps(run) == list(range(1, 11)), run.name  # none twice
    assert files(workdir, runs) == files(tmp_path / "whole", whole)


def test_sigterm_stops_the_run_too_and_the_next_goes_on(tmp_path):
    (*_, run) = runs = runs_of(tmp_path)
    process = start(tmp_path)
    wait_for(lambda: runs[0].fraction() >= 0.2)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 143 and "stopped by signal 15: the same command goes on" in out
    assert 0.2 <= runs[0].fraction() < 1
    assert runner.run_all(runs, script=FAKE) == 0
    assert steps(runs[0]) == steps(run) == list(range(1, 11))


# --- Tables.


def test_intervals():
    assert tables.interval([3.0]) == (3.0, None)
    # t(0.975) of 2 degrees of freedom is 4.302653.
    values = [76.1, 76.9, 77.3]
    mean, half = tables.interval(values)
    assert mean == pytest.approx(np.mean(values))
    assert half == pytest.approx(4.302653 * np.std(values, ddof=1) / math.sqrt(3), rel=1e-6)


def finished(folder, row, seed, best, final):
    workdir = folder / row.name / f"seed{seed}"
    workdir.mkdir(parents=True)
    result = {"best": {"top1": best}, "final": {"top1": final}, "best_metric": "top1", "seconds": 9}
    (workdir / "result.json").write_text(json.dumps(result))
    return Run(row, seed, workdir, (f"--config=x.py:{row.name}", f"--config.seed={seed}"))


def test_a_table_pairs_runs_by_seed(tmp_path):
    values = {"baseline": {0: 70.0, 1: 71.0, 2: 75.0}, "dropblock": {0: 71.0, 2: 75.5}}
    runs = [
        finished(tmp_path, row, seed, best, best - 1)
        for row in ROWS
        for seed, best in values[row.name].items()
    ]
    baseline, dropblock = tables.collect(runs, ("top1",))
    assert (baseline["seeds"], dropblock["seeds"]) == (3, 2)
    assert baseline["top1"] == 72.0 and baseline["final"] == 71.0
    assert (baseline["top1_paper"], baseline["top1_paper_spread"]) == (76.51, 0.07)
    assert baseline["difference"] is None
    assert dropblock["difference"] == 0.75  # of 1.0 and 0.5
    # t(0.975) of 1 degree of freedom is 12.7062.
    assert dropblock["difference_interval"] == pytest.approx(12.7062 * 0.25, rel=1e-5)
    text = tables.to_markdown([baseline, dropblock], ("top1",))
    assert "| difference to baseline, by seed |" in text
    assert "| baseline | 3 | 72.00 ± 6.57 | 76.51 ± 0.07 | 71.00 ± 6.57 | - |  |" in text
    assert "| +0.75 ± 3.18 |" in text
    other, _ = tables.collect(runs, ("top1",), reference="dropblock")
    assert other["difference"] == -0.75
    unknown = dict.fromkeys(("top1_paper", "top1_paper_spread"))
    text = tables.to_markdown([baseline | unknown, dropblock | unknown], ("top1",))
    assert "| baseline | 3 | 72.00 ± 6.57 | 71.00 ± 6.57 | - |  |" in text and "paper" not in text
    assert tables.to_csv([baseline]).splitlines()[1].startswith("baseline,,3,72.0,6.5724,")


def test_table3_has_the_limits_of_detections_that_all_runs_were_scored_at(tmp_path):
    runs = [finished(tmp_path, ROWS[0], seed, 70.0, 70.0) for seed in range(2)]
    unfinished = Run(ROWS[0], 2, tmp_path / "seed2", ())
    assert table3.metrics_of([unfinished]) == table3.metrics_of(runs) == table3.METRICS
    for seed, names in enumerate((("AP@1000", "AP@500"), ("AP50@500", "AP@500", "AP@1000"))):
        best = dict.fromkeys(names, 30.0)
        (runs[seed].workdir / "result.json").write_text(json.dumps({"best": best}))
    runs.append(unfinished)
    assert table3.metrics_of(runs) == (*table3.METRICS, "AP@500", "AP@1000")


def test_table1_has_every_method_and_the_papers_numbers():
    rows = {row.name: row for row in table1.make_rows(["--config.epochs=27"])}
    assert set(rows) == set(methods.VARIANTS) and len(table1.PAPER) == 9
    assert rows["dropblock"].paper == {"top1": (78.13, 0.05), "top5": (94.02, 0.02)}
    assert rows["dropblock_label_smoothing"].overrides == {"epochs": pytest.approx(29)}
    text = (processes.ROOT / "docs" / "paper.md").read_text()
    for paper in table1.PAPER.values():
        cells = [f"{mean:.2f}" + (f" ± {pm:.2f}" if pm else "") for mean, pm in paper.values()]
        assert f"| {' | '.join(cells)} |" in text


def test_table2_has_every_variant_and_the_papers_numbers():
    rows = {row.name: row for row in table2.make_rows()}
    assert set(rows) == set(amoebanet.VARIANTS)
    assert rows["drop_path"].paper == {} and "not in the paper" in rows["drop_path"].note
    text = (processes.ROOT / "docs" / "paper.md").read_text()
    for name, method in (("baseline", ""), ("dropblock", " + DropBlock")):
        top1, top5 = (rows[name].paper[metric][0] for metric in ("top1", "top5"))
        assert f"| AmoebaNet-B (6, 256){method} | {top1:.2f} | {top5:.2f} |" in text


def test_data_sets_are_found_by_the_kind_of_network():
    configs = processes.ROOT / "configs"
    assert runner.config_path("imagenet") == configs / "imagenet_resnet50.py"
    assert runner.config_path("imagenet", "amoebanet") == configs / "imagenet_amoebanet_b.py"
    assert runner.config_path("cifar10", "amoebanet") == configs / "cifar10_amoebanet.py"
    assert not runner.config_path("mnist", "amoebanet").exists()


def test_lengths_of_the_last_row():
    flags = ["--config.steps=270", "--config.schedule.boundaries=(27.0,54)"]
    assert table1.lengthened(flags) == {
        "steps": 290,
        "schedule.boundaries": pytest.approx((29.0, 58.0)),
    }
    assert table1.lengthened(["--config.batch_size=3"]) == {}
