"""The training command as its users meet it: whole runs, kills, and what goes wrong."""

import json
import pathlib
import random
import re
import shutil
import signal
import time

import jax
import numpy as np
import pytest
from PIL import Image

import tiny
import train
from processes import (
    ON_FOLDER,
    arrays,
    end,
    evaluated,
    finish,
    once,
    records,
    run,
    start,
    state,
    untimed,
)
from training.checkpoints import Checkpoints
from training.config import ConfigError


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A whole run of 12 steps, and what it printed."""
    return once(tmp_path_factory, "undisturbed", run)


def test_a_run_leaves_everything_it_promises(undisturbed):
    workdir, output = undisturbed
    names = {path.name for path in workdir.iterdir()}
    assert names == {
        "config.json",
        "data.json",
        "metrics.jsonl",
        "tensorboard",
        "checkpoints",
        "plots",
        "result.json",
    }
    assert {path.name for path in (workdir / "plots").iterdir()} == {"curves.png", "examples.png"}
    lines = records(workdir)
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert [line["step"] for line in lines if "eval/top1" in line] == [6, 12]
    assert all(line["eval/examples"] == 50 for line in lines if "eval/top1" in line)

    result = json.loads((workdir / "result.json").read_text())
    assert result["final"]["step"] == 12 and result["best"]["top1"] >= result["final"]["top1"]
    assert result["versions"]["jax"] == jax.__version__ and result["devices"].startswith("1 x")
    assert set(result["kept"]) == {"group3", "group4"}
    for kept in result["kept"].values():
        assert kept["kept"] == pytest.approx(kept["expected"], abs=0.02) and kept["kept"] < 1
    doing = [
        "opening the data",
        "initialising",
        "reading the first batch",
        "compiling the training",
    ]
    said = [line for line in output.splitlines() if line.startswith(tuple(doing))]
    assert all(map(str.startswith, said, doing)) and len(said) == 4
    splits = json.loads((workdir / "data.json").read_text())["splits"]
    assert splits["test[:50]"]["counts"] == {str(digit): 5 for digit in range(10)}
    assert re.search(r"\n +train\[:64\] +test\[:50\]\n +images +64 +50\n", output)
    assert re.search(r"step 12/12 .* images/s", output)
    assert re.search(r"group4: kept 0\.\d+, expected 0\.\d+", output)
    assert str(workdir / "plots") in output


def test_a_finished_run_stays_finished(undisturbed, tmp_path):
    workdir = shutil.copytree(undisturbed[0], tmp_path / "run")
    before = records(workdir)
    run(workdir)
    assert records(workdir) == before


def check_kills(undisturbed, workdir, kills, seed):
    """Kills a run at random moments, restarts it each time, and compares the end."""
    moments = random.Random(seed)
    metrics = workdir / "metrics.jsonl"
    for _ in range(kills):
        process = start(workdir)
        lines = metrics.read_text().count("\n") if metrics.exists() else 0
        # Until it has trained on, then some more: in a step, an evaluation, or a save.
        while process.poll() is None:
            if metrics.exists() and metrics.read_text().count("\n") not in (0, lines):
                break
            time.sleep(0.01)
        time.sleep(moments.uniform(0.0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    run(workdir)
    assert state(workdir, 12) == state(undisturbed[0], 12)
    assert untimed(workdir) == untimed(undisturbed[0])


def test_a_kill_changes_nothing(undisturbed, tmp_path):
    workdir = tmp_path / "run"
    process = start(workdir)
    # A run that is killed before it has saved begins anew, which would show nothing.
    while process.poll() is None and not list(workdir.glob("checkpoints/*/manifest.json")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (workdir / "result.json").exists()
    assert re.search(r"going on from step \d+ of 12", run(workdir))
    assert state(workdir, 12) == state(undisturbed[0], 12)
    assert untimed(workdir) == untimed(undisturbed[0])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_five_kills_change_nothing(undisturbed, tmp_path, seed):
    check_kills(undisturbed, tmp_path / "run", kills=5, seed=seed)


def test_sigterm_saves_and_the_run_goes_on(undisturbed, tmp_path):
    workdir = tmp_path / "run"
    process = start(workdir)
    metrics = workdir / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.read_text()):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output = finish(process, code=143)
    step = int(re.search(r"step (\d+) is saved", output)[1])
    manifest = workdir / "checkpoints" / str(step) / "manifest.json"
    curves = workdir / "plots" / "curves.png"
    assert step < 12 and manifest.stat().st_mtime_ns < curves.stat().st_mtime_ns
    assert not (workdir / "result.json").exists()
    again = run(workdir)
    assert "reading the last checkpoint\n" in again and "initialising" not in again
    assert f"going on from step {step} of 12" in again
    assert state(workdir, 12) == state(undisturbed[0], 12)
    assert untimed(workdir) == untimed(undisturbed[0])


def test_divergence_names_the_step_and_leaves_a_good_checkpoint(tmp_path):
    workdir = tmp_path / "run"
    arguments = ["--config.schedule.learning_rate=1e30", "--config.checkpoint_every_steps=1"]
    output = run(workdir, *arguments, code=3)
    found = re.search(r"error: (loss|grad_norm) is (nan|inf) at step (\d+)", output)
    assert found is not None
    last = int(found[3]) - 1
    # Nothing that is not finite was logged or saved, and nothing before it was lost.
    assert [line["step"] for line in records(workdir)] == list(range(1, last + 1))
    assert all(np.isfinite(line["train/loss"]) for line in records(workdir))
    with Checkpoints(workdir / "checkpoints", keep=None, best_metric="top1") as checkpoints:
        assert checkpoints.steps[-1] == last
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(arrays(workdir, last)))
    assert (workdir / "plots" / "curves.png").exists() == (last > 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.modle.depth=18"], "no config field 'modle' here: did you mean 'model'"),
        pytest.param(["--config.batch_size=many"], "batch_size", marks=pytest.mark.slow),
        (["--config.drop.keep_prob=1.5"], r"drop.keep_prob must be in \[0, 1\], got 1.5"),
        pytest.param(
            ["--config.drop.block_size=0"], "block_size must be at least 1", marks=pytest.mark.slow
        ),
        (["--config.drop.block_size=(3,3,3)"], r"block_size .* got \(3, 3, 3\)"),
        (["--topology=v5e:2x4"], "--topology is for --dry_run=compile"),
        (["--dry_run=compile", "--topology=v5e:2x5"], "there is no v5e:2x5: "),
    ],
)
def test_bad_input_ends_in_one_sentence_before_anything_is_written(tmp_path, arguments, message):
    process = start(tmp_path / "run", *arguments)
    output, errors = end(process)
    assert process.returncode == 2, output + errors
    assert len(errors.splitlines()) == 1 and re.match(f"error: .*{message}", errors), errors
    assert not (tmp_path / "run").exists()


def test_parts_of_a_place_can_be_named_on_the_command_line(tmp_path):
    places = "--config.drop.places={'group3': 0.1, 'group4/block1/conv2': 1.0}"
    began = time.monotonic()
    output = run(tmp_path, places, "--dry_run=compile")
    took = time.monotonic() - began
    assert "dropblock sites: 4, group3: 3, group4.block1.conv2: 1" in output
    assert re.search(r"as XLA plans it for cpu: \d\.\d\d GiB, .*\ncollectives of a step:", output)
    seconds = re.findall(r"seconds to (?:trace|compile) the training step: ([\d.]+)\n", output)
    assert len(seconds) == 2 and all(0 <= float(part) < took for part in seconds)


def test_a_misspelt_variant_is_named(tmp_path):
    output = run(tmp_path / "run", config="configs/imagenet_resnet50.py:dropblok", code=2)
    assert output.startswith("error: no variant 'dropblok' in this config; it has baseline, ")
    assert output.count("\n") == 1


@pytest.mark.slow
def test_a_missing_config_is_named(tmp_path):
    output = run(tmp_path / "run", config="configs/nothing.py", code=2)
    assert "configs/nothing.py" in output and output.count("\n") == 1


def test_another_config_in_the_workdir_is_refused_and_nothing_harmed(undisturbed, tmp_path):
    workdir = shutil.copytree(undisturbed[0], tmp_path / "run")
    before = {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()}
    output = run(workdir, "--config.seed=1", code=2)
    assert "seed was 0, is 1" in output and "--allow_config_change" in output
    assert before == {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()}


def test_a_run_goes_on_with_other_intervals(undisturbed, tmp_path):
    workdir = shutil.copytree(undisturbed[0], tmp_path / "run")
    for step in (12, 9):
        shutil.rmtree(workdir / "checkpoints" / str(step), ignore_errors=True)
    output = run(workdir, "--config.log_every_steps=2", "--config.data.on_error=skip")
    assert re.search(
        r"going on from step \d+ of 12\nwith another setting: data.on_error was 'raise', is"
        r" 'skip'; log_every_steps was 1, is 2\n",
        output,
    )
    assert state(workdir, 12) == state(undisturbed[0], 12)
    assert json.loads((workdir / "config.json").read_text())["log_every_steps"] == 2


def test_checkpoints_elsewhere_are_tied_to_their_config_too(undisturbed, tmp_path):
    elsewhere = shutil.copytree(undisturbed[0] / "checkpoints", tmp_path / "elsewhere")
    config = tiny.get_config()
    config.seed = 1
    message = rf"{elsewhere} holds a run of another config \(seed was 0, is 1\)"
    with pytest.raises(ConfigError, match=message):
        train.train(config, tmp_path / "run", checkpoint_dir=elsewhere)
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_reported_from_its_checkpoints_alone(undisturbed, tmp_path):
    elsewhere = shutil.copytree(undisturbed[0] / "checkpoints", tmp_path / "elsewhere")
    run(tmp_path / "run", f"--checkpoint_dir={elsewhere}")
    before, after = (
        json.loads((workdir / "result.json").read_text())
        for workdir in (undisturbed[0], tmp_path / "run")
    )
    assert after["final"] == before["final"]


def test_a_config_of_another_model_does_not_replace_the_runs(undisturbed, tmp_path):
    workdir = shutil.copytree(undisturbed[0], tmp_path / "run")
    arguments = ["--allow_config_change", "--config.model.depth=18"]
    assert "another model" in run(workdir, *arguments, code=2)
    assert (workdir / "config.json").read_text() == (undisturbed[0] / "config.json").read_text()


def test_a_flipped_byte_is_noticed_and_the_run_recovers(undisturbed, tmp_path):
    workdir = shutil.copytree(undisturbed[0], tmp_path / "run")
    files = [p for p in (workdir / "checkpoints" / "12" / "state").rglob("*") if p.is_file()]
    victim = max(files, key=lambda p: p.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    output = run(workdir)
    assert "step 12 is damaged" in output and "going on from step 9 of 12" in output
    assert state(workdir, 12) == state(undisturbed[0], 12)
    assert untimed(workdir) == untimed(undisturbed[0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An image folder of two classes, with one file in each split that is no image."""
    root = tmp_path_factory.mktemp("images")
    pixels = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 9)):
        for name, level in (("dark", 60), ("light", 190)):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                image = (level + pixels.integers(-40, 40, (32, 32, 3))).astype(np.uint8)
                suffix = "JPEG" if index % 2 else "png"
                Image.fromarray(image).save(root / split / name / f"{index}.{suffix}")
        (root / split / "dark" / "broken.JPEG").write_bytes(b"\xff\xd8 not an image")
    return root


def on_folder(folder, on_error):
    return [
        f"--config.data.dir={folder}",
        f"--config.data.on_error={on_error}",
        *ON_FOLDER,
    ]


@pytest.fixture(scope="module")
def skipping(folder, tmp_path_factory):
    """A run that skips what cannot be read, and what it printed."""
    arguments = on_folder(folder, "skip")
    return once(tmp_path_factory, "skipping", lambda workdir: run(workdir, *arguments))


def test_a_corrupt_image_is_skipped_named_and_counted(skipping):
    workdir, output = skipping
    last = records(workdir)[-1]
    # 33 training files, 2 steps of 16 an epoch; 19 to evaluate, of which one does not count.
    assert (
        last["step"] == 6 and last["data/skipped_since_start"] >= 1 and last["eval/examples"] == 18
    )
    # Each is warned of once, though val is evaluated twice, and counted at the end.
    for split in ("train", "val"):
        path = str(pathlib.Path(split) / "dark" / "broken.JPEG")
        assert output.count(f"{path} cannot be decoded") == 1
        assert (workdir / "bad_files.txt").read_text().count(path) == 1
    assert "on_error" not in output
    assert f"skipped: 2 examples that cannot be used, all named in {workdir}" in output
    assert re.search(r"\n +images +33 +19\n +dark +17 +10\n +light +16 +9\n", output)


def test_a_run_goes_on_where_its_data_has_moved_to(folder, skipping, tmp_path):
    workdir = shutil.copytree(skipping[0], tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints" / "6")
    moved = shutil.copytree(folder, tmp_path / "moved")
    output = run(workdir, *on_folder(moved, "skip"))
    assert f"data.dir was '{folder}', is '{moved}'" in output
    assert state(workdir, 6) == state(skipping[0], 6)
    (moved / "train" / "dark" / "0.png").unlink()
    output = run(workdir, *on_folder(moved, "skip"), code=2)
    assert "another config (data.num_train_examples was 33, is 32)" in output


def test_a_corrupt_image_is_fatal_where_the_config_says_so(folder, tmp_path):
    output = run(tmp_path / "run", *on_folder(folder, "raise"), code=2)
    assert "error: " in output and "broken.JPEG" in output and "Traceback" not in output


def test_evaluate_finds_what_training_found(undisturbed):
    workdir, _ = undisturbed
    last = records(workdir)[-1]
    result = evaluated(workdir)
    assert result == {"step": 12} | {
        k.removeprefix("eval/"): v for k, v in last.items() if k.startswith("eval/")
    }


def test_evaluate_needs_the_evaluation_split_alone(folder, skipping, tmp_path):
    # Not even all classes are there: what labels mean is written in the run's config.
    shutil.copytree(folder / "val" / "light", tmp_path / "val" / "light")
    options = [f"--data_dir={tmp_path}"]
    assert evaluated(skipping[0], *options)["examples"] == 9
    config = json.loads((skipping[0] / "config.json").read_text())["data"]
    assert config["class_names"] == ["dark", "light"] and config["num_train_examples"] == 33


def test_evaluate_with_dropblock_on(undisturbed):
    workdir, _ = undisturbed
    result = evaluated(workdir, "--keep_prob=0.5", "--block_size=2", "--checkpoint=best")
    # Block 2 on 2x2 maps drops whole channels; the group's factor holds.
    assert result["expected_kept/group4"] == pytest.approx(0.5, abs=0.08)
    assert result["kept/group4"] == pytest.approx(result["expected_kept/group4"], abs=0.05)


def test_evaluate_names_the_checkpoints_there_are(undisturbed):
    output = run(undisturbed[0], "--checkpoint=5", script="evaluate.py", code=2)
    assert re.search(r"no checkpoint '5' .* there are .*12", output)
