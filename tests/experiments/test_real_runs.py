"""Experiments on runs of train.py itself: the 64 digits of tests/tiny.py."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import processes
from experiments import figure5, figure6, runner, table1, trained

ENVIRONMENT = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_NUM_CPU_DEVICES": "1"}


def words_of(workdir, rows):
    words = ["--dataset", processes.TINY, "--rows", *rows, "--seeds", "0"]
    return [*words, "--workdir", str(workdir)]


def start(workdir, rows):
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.table1", *words_of(workdir, rows)],
        cwd=processes.ROOT,
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def runs_of(workdir, rows):
    arguments = runner.parse(runner.parser(None, ""), words_of(workdir, rows))
    return runner.make_runs(table1.make_rows([]), arguments)


def evaluated(run):
    result = run.result()
    return result["best"], result["final"]


def table(workdir):
    return [(workdir / f"table1.{form}").read_text() for form in ("csv", "md")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A sweep of one run, never disturbed."""

    def make(workdir):
        return processes.finish(start(workdir, ["dropblock"]))

    workdir, output = processes.once(tmp_path_factory, "whole", make)
    assert "| dropblock | 1 |" in output
    return workdir


def kill_at(workdir, rows, run, fraction):
    """Starts the runner, and kills it and its run when `run` is so far."""
    process = start(workdir, rows)
    deadline = time.monotonic() + 200
    while run.fraction() < fraction:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.005)
    process.kill()
    os.kill(int((run.workdir / "lock").read_text()), signal.SIGKILL)
    process.communicate()
    assert run.result() is None


def test_a_kill_changes_nothing_in_the_table(whole, tmp_path):
    (run,) = runs_of(tmp_path, ["dropblock"])
    kill_at(tmp_path, ["dropblock"], run, 0.5)
    processes.finish(start(tmp_path, ["dropblock"]))
    assert table(tmp_path) == table(whole)
    (undisturbed,) = runs_of(whole, ["dropblock"])
    assert evaluated(run) == evaluated(undisturbed)  # the loss too, to the last bit
    assert "going on from step" in (run.workdir / "log.txt").read_text()


@pytest.mark.slow
def test_two_kills_in_each_of_two_rows_change_nothing_in_the_table(tmp_path):
    rows = ["baseline", "dropblock"]
    for run in runs_of(tmp_path / "killed", rows):
        for fraction in (0.2, 0.6):
            kill_at(tmp_path / "killed", rows, run, fraction)
    for workdir in (tmp_path / "killed", tmp_path / "whole"):
        processes.finish(start(workdir, rows))
    assert table(tmp_path / "killed") == table(tmp_path / "whole")


def test_figures_5_and_6_of_a_trained_network(whole):
    (run,) = runs_of(whole, ["dropblock"])
    result = run.result()
    assert result is not None
    found = figure5.evaluate(run, 2, [0.0, 0.5, 1.0])
    assert found[1.0] == pytest.approx(result["best"]["top1"])  # nothing is dropped
    assert found[0.0] == pytest.approx(10)  # all is dropped: each is called the same
    plan, _ = trained.load(run, kind="dropblock", block_size=3)
    assert plan.task.drop.block_size == 3
    known = json.loads((run.workdir / "inference.json").read_text())
    assert known == {"2 0": found[0.0], "2 0.5": found[0.5], "2 1": found[1.0]}
    # What is known is not evaluated again.
    (run.workdir / "inference.json").write_text(json.dumps(known | {"2 0.5": 12.5}))
    assert figure5.evaluate(run, 2, [0.5])[0.5] == 12.5

    shares, shown = figure6.look(run, {3, 49})
    assert shares.shape == (50,) and set(shown) == {3, 49}
    assert np.nanmin(shares) > 0 and np.nanmax(shares) <= 1 + 1e-6
    image, label, own = shown[49]
    assert image.shape == (28, 28, 1) and label in range(10) and own.shape == (2, 2)
    assert figure6.draw({"dropblock": shown, "again": shown}).axes


@pytest.mark.slow
def test_figures_5_and_6_as_they_are_run(tmp_path, capsys, monkeypatch):
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    words = ["--dataset", processes.TINY, "--block", "2", "--seeds", "1"]
    words += ["--workdir", str(tmp_path)]
    assert figure5.main([*words, "--keep_probs", "0.5", "1"]) == 0
    points = list(csv.DictReader((tmp_path / "figure5.csv").read_text().splitlines()))
    assert len(points) == 2 * 3 * 2

    assert figure6.main([*words, "--images", "3", "49"]) == 0
    assert "3 of 3 runs are finished already" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "figure6.csv").read_text().splitlines()))
    assert [row["row"] for row in rows] == ["baseline", "block1", "block2"]
    assert all(0 < float(row["share"]) <= 1 for row in rows)
    assert (tmp_path / "figure6.png").stat().st_size > 5000
    with pytest.raises(SystemExit, match="--images must be from 0 to 49, got"):
        figure6.main([*words, "--images", "50"])
