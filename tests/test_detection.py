"""A tiny detector's whole runs: exact resume, what is left behind, and predict.py on it."""

import contextlib
import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import tiny_detection
import train
from processes import StopsAt, evaluated, once, records, run, state, untimed
from tasks import make_task
from training.evaluation import make_evaluate
from training.plan import make_plan


def part(config, workdir, stop_at=99):
    """Trains until the n-th time that a stop signal is asked for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "StopSignals", lambda *_: contextlib.nullcontext(StopsAt(stop_at)))
        return train.train(config, workdir)


def make_runs(folder):
    """`whole`, a run on one device from a classifier's backbone, and `stopped`, the same in parts.

    `stopped` is interrupted in the evaluation of step 3, and the classifier removed.
    """
    config = tiny_detection.get_config()
    config.init_from = str(folder / "classifier")
    tiny_detection.save_classifier(folder / "classifier")
    plan = make_plan(config, make_task, jax.devices()[:1])
    evaluation = make_evaluate(plan)
    with pytest.MonkeyPatch.context() as patch:
        # Each part would trace and compile the same again.
        patch.setattr(train, "make_plan", lambda *_: plan)
        patch.setattr(train, "make_evaluate", lambda *_, **__: evaluation)
        assert part(config, folder / "whole") == 0
        assert part(config, folder / "stopped", stop_at=4) == 143
        assert records(folder / "stopped")[-1]["step"] == 3
        shutil.rmtree(folder / "classifier")
        assert part(config, folder / "stopped") == 0
    return "done"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return once(tmp_path_factory, "detection", make_runs)[0]


def test_resume_is_exact_and_loads_no_backbone_again(runs):
    assert [r["step"] for r in records(runs / "whole")] == [1, 2, 3, 4, 5, 6]
    assert untimed(runs / "stopped") == untimed(runs / "whole")
    assert state(runs / "stopped", 6) == state(runs / "whole", 6)


def test_a_run_leaves_its_detections_and_pictures(runs):
    workdir = runs / "whole"
    assert {path.name for path in (workdir / "plots").iterdir()} == {"curves.png", "examples.png"}
    first, *_, last = records(workdir)
    assert last["train/loss"] < 0.95 * first["train/loss"]
    assert last["eval/examples"] == 20 and last["eval/skipped"] == 0
    assert {"eval/AP", "eval/AP50", "eval/AP75", "eval/AR20", "eval/AP@50"} <= last.keys()
    assert any(name.startswith("eval/AP/") for name in last)
    result = json.loads((workdir / "result.json").read_text())
    assert result["best_metric"] == "AP" and result["best"]["AP"] >= result["final"]["AP"]
    assert set(result["kept"]) == {"group3", "group4"}
    # The 20 scenes of the split have the ids 1 to 20, the ten digits 1 to 10.
    found = json.loads((workdir / "detections.json").read_text())
    assert {d["image_id"] for d in found} == set(range(1, 21))
    assert {d["category_id"] for d in found} <= set(range(1, 11))
    counts = [sum(d["image_id"] == id for d in found) for id in range(1, 21)]
    assert max(counts) <= 50


def test_eight_devices_train_like_one(runs, tmp_path):
    config = tiny_detection.get_config()
    tiny_detection.save_classifier(tmp_path / "classifier")
    config.init_from = str(tmp_path / "classifier")
    assert part(config, tmp_path / "eight", stop_at=2) == 143
    assert [r["step"] for r in records(tmp_path / "eight")] == [1, 2]
    for eight, one in zip(records(tmp_path / "eight"), records(runs / "whole"), strict=False):
        for name in ("train/loss", "train/positives", "train/grad_norm", "kept/group4"):
            assert eight[name] == pytest.approx(one[name], rel=1e-4), name


@pytest.mark.slow  # its short form: tests/tasks/test_detection.py's on predictions
def test_eight_devices_evaluate_like_one(runs, tmp_path):
    arguments = [f"--out={tmp_path}"]
    metrics = evaluated(runs / "whole", *arguments, devices=8)
    last = records(runs / "whole")[-1]
    expected = {k.removeprefix("eval/"): v for k, v in last.items() if k.startswith("eval/")}
    assert metrics == pytest.approx({"step": 6} | expected, rel=1e-3, abs=1e-2)
    assert {path.name for path in tmp_path.iterdir()} == {"examples.png", "detections.json"}


def save_image(path, height, width):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width), np.uint8)
    Image.fromarray(pixels).save(path)


def test_predict_on_images_of_ones_own(runs, tmp_path):
    save_image(tmp_path / "some" / "wide.png", 30, 50)
    save_image(tmp_path / "some" / "below" / "high.jpg", 120, 70)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG not")
    out = tmp_path / "out"
    paths = [str(tmp_path / name) for name in ("some", "broken.png", "missing.jpg")]
    arguments = [f"--out={out}", "--checkpoint=best", "--images", *paths]
    output = run(runs / "whole", *arguments, script="predict.py", code=2)
    assert "2 images predicted" in output and "2 images could not be read" in output
    assert "using the moving average (EMA) of the weights of step 6, " in output
    assert "broken.png cannot be decoded" in output and "missing.jpg cannot be read" in output
    assert "replace it" not in output and "on_error" not in output  # they are left out already
    result = json.loads((out / "predictions.json").read_text())
    assert [skipped["file_name"] for skipped in result["skipped"]] == paths[1:]
    files = {"below_high.png": (120, 70), "wide.png": (30, 50)}
    assert {i["picture"]: (i["height"], i["width"]) for i in result["images"]} == files
    assert {path.name for path in out.iterdir()} == {"predictions.json", *files}
    images = {image["id"]: image for image in result["images"]}
    assert {found["image_id"] for found in result["annotations"]} == images.keys()
    for found in result["annotations"]:
        (x, y, width, height), image = found["bbox"], images[found["image_id"]]
        assert 0 <= x <= x + width <= image["width"] + 1e-4 and width >= 0
        assert 0 <= y <= y + height <= image["height"] + 1e-4 and height >= 0
        assert found["category"] in "0123456789" and 0 < found["score"] < 1


def overfit(workdir, steps):
    """Trains on four scenes, and evaluates on the same; the last record."""
    config = tiny_detection.get_config("baseline")
    config.update_from_flattened_dict(
        {
            "data.train_split": "train[:4]",
            "data.eval_split": "train[:4]",
            "data.scale": (1.0, 1.0),
            "model.width_multiplier": 0.25,
            "model.fpn_channels": 32,
            "model.head_channels": 32,
            "model.bn_momentum": 0.9,
            "epochs": float(steps),
            "eval_every_epochs": float(steps),
            "log_every_steps": 10,
            "checkpoint_every_steps": steps,
            "schedule.learning_rate": 0.32,
            "schedule.warmup_epochs": 20.0,
            "optimizer.weight_decay": 0.0,
        }
    )
    with config.ignore_type():
        config.ema_decay = None
    assert part(config, workdir, stop_at=10_000) == 0
    return records(workdir)


@pytest.mark.slow
def test_a_detector_can_learn_four_scenes_by_heart(tmp_path):
    assert overfit(tmp_path, 400)[-1]["eval/AP50"] > 95
