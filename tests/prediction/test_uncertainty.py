"""What is told of samples: in Python, JSON and CSV, and as maps of a mask."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from scipy.special import entr, softmax

import random_runs
import tiny
import tiny_detection
import tiny_segmentation
from predict import predict
from prediction import open_run, uncertainty
from tasks import make_task
from training.config import ConfigError

SPREAD = ("entropy", "expected_entropy", "mutual_information", "std")


def task_of(module, class_names):
    """A task without its data."""
    config = module.get_config()
    config.data.class_names = class_names
    return make_task(config, train=False, evaluate=False)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Files of noise, `{path: name of the picture}`."""
    folder, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(3):
        noise = random.integers(0, 256, (28, 28), np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    return {str(folder / f"{number}.png"): f"{number}.png" for number in range(3)}


def test_classes_have_a_mean_and_a_spread_that_a_seed_draws_again(runs, images, tmp_path):
    workdir = runs["classification"]

    def drawn(out, **options):
        run = open_run(workdir, mc_samples=4, keep_prob=0.5, **options)
        assert predict(run, images, tmp_path / out, draw=False) == {"images": 3, "skipped": 0}
        found = json.loads((tmp_path / out / "predictions.json").read_text())
        told = {name: found["info"][name] for name in ("mc_samples", "keep_prob", "seed")}
        assert told == {"mc_samples": 4, "keep_prob": 0.5, "seed": options.get("seed", 0)}
        return found["images"]

    first = drawn("first", seed=1)
    assert drawn("again", seed=1) == first
    assert drawn("other") != first
    run = open_run(workdir, mc_samples=4, keep_prob=0.5, seed=1)
    batches = [run.predict(list(images)) for _ in range(2)]
    assert batches[0] != batches[1]  # each batch has draws of its own
    for image in first:
        assert image["uncertainty"].keys() == set(SPREAD)
        assert image["uncertainty"]["std"] == image["top5"][0]["std"] > 1e-3
        assert all(0 < found["std"] < 0.5 for found in image["top5"])
    with (tmp_path / "first" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, image in zip(rows, first, strict=True):
        assert {name: float(row[name]) for name in SPREAD} == image["uncertainty"]


def test_what_cannot_be_drawn_is_one_sentence(runs, tmp_path):
    workdir = runs["classification"]
    with pytest.raises(ConfigError, match="^mc_samples must be at least 1, got 0$"):
        open_run(workdir, mc_samples=0)
    for options in ({"keep_prob": 0.5}, {"seed": 1}):
        with pytest.raises(ConfigError, match="give mc_samples$"):
            open_run(workdir, **options)
    with pytest.raises(ConfigError, match=r"^drop.keep_prob must be in \[0, 1\], got 1.5$"):
        open_run(workdir, mc_samples=2, keep_prob=1.5)
    random_runs.save(tiny.get_config("baseline"), tmp_path)
    with pytest.raises(ConfigError, match="^the run was trained without dropping: [^.]*$"):
        open_run(tmp_path, checkpoint_dir=tmp_path, mc_samples=2)
    (tmp_path / "config.json").rename(tmp_path / "predict.json")
    with pytest.raises(ConfigError, match="holds an exported network, which drops nothing"):
        open_run(tmp_path, mc_samples=2)


def test_a_detection_tells_its_spread():
    task = task_of(tiny_detection, ("a", "b"))
    found = {
        "boxes": np.array([[1, 2, 11, 22], [0, 0, 5, 5], [0, 0, 0, 0]], np.float32),
        "scores": np.array([0.75, 0.5, 0.0], np.float32),
        "labels": np.array([1, 0, -1]),
    }
    assert "score_std" not in task.describe(found)["annotations"][0]
    spread = {name: np.array([0.25, 0.5, 0.0]) for name in SPREAD[:-1]}
    found |= spread | {"score_std": np.array([0.125, 0.25, 0.0])}
    found |= {"box_std": np.array([[1, 2, 3, 4], [5, 6, 7, 8], [0, 0, 0, 0]], float)}
    first, second = task.describe(found)["annotations"]
    assert first["bbox"] == [2, 1, 20, 10] and first["edges_std"] == [2, 1, 4, 3]
    assert (first["score_std"], second["score_std"]) == (0.125, 0.25)
    assert {name: second[name] for name in spread} == dict.fromkeys(spread, 0.5)


@pytest.fixture(scope="module")
def segmented():
    """A task, and what it predicts of samples for an image of 45 x 40 pixels."""
    random = np.random.default_rng(1)
    task = task_of(tiny_segmentation, ("background", "one", "two"))
    cells = -(-33 // task.stride)
    logits = 4 * random.normal(size=(cells, cells, 3)).astype(np.float32)
    return task, {
        "logits": logits,
        "spread": random.random((cells, cells, 3)).astype(np.float32) / 2,
        "scale": np.array([33 / 45, 33 / 40], np.float32),
        "original_size": np.array([45, 40]),
    }


def test_maps_are_of_the_images_own_pixels(segmented, tmp_path):
    task, found = segmented
    maps = task.maps(found)
    assert task.maps({name: x for name, x in found.items() if name != "spread"}) == {}
    # Each pixel from its own four cells, one by one.
    at = [
        np.clip(((np.arange(count) + 0.5) * scale - 0.5) / task.stride, 0, cells - 1)
        for count, scale, cells in zip(
            (45, 40), found["scale"], found["logits"].shape, strict=False
        )
    ]
    values = np.concatenate([found["logits"], found["spread"]], axis=-1)
    for y, x in ((0, 0), (13, 30), (44, 39), (33, 7)):
        weights = np.maximum(1 - np.abs(at[0][y] - np.arange(len(values)))[:, None], 0)
        weights = weights * np.maximum(1 - np.abs(at[1][x] - np.arange(len(values[0]))), 0)
        value = (values * weights[..., None]).sum((0, 1))
        p = softmax(value[:3])
        expected = {"probability": p.max(), "std": value[5], "entropy": entr(p).sum()}
        expected |= {"mutual_information": value[4]}
        told = {name: map.values[y, x] * map.scale for name, map in maps.items()}
        assert told == pytest.approx(expected, abs=1e-4)
        assert task.mask(found)[y, x] == p.argmax()

    told = uncertainty.save(maps, tmp_path, "a.png")
    for name, entry in told.items():
        with Image.open(tmp_path / entry["file"]) as file:
            values = np.asarray(file)
        assert values.dtype == np.uint16 and (values == maps[name].values).all()
        assert entry["mean"] == pytest.approx((values * entry["scale"]).mean())


def test_the_picture_has_the_image_its_mask_and_where_it_is_uncertain(segmented):
    task, found = segmented
    maps = task.maps(found)
    image = np.zeros((45, 40, 1), np.uint8)
    figure = uncertainty.picture(task, image, found, maps)
    seen, mask, spread, beside = figure.axes
    assert len(seen.images) == len(mask.images) == 1
    (shown,) = spread.images
    values, scale = maps["mutual_information"]
    np.testing.assert_allclose(shown.get_array(), values * scale, rtol=1e-5)
    assert shown.get_clim() == pytest.approx((0.0, values.max() * scale))
    (bar,) = beside.child_axes
    assert "nats" in bar.get_ylabel()
    assert bar.get_ylim() == pytest.approx(shown.get_clim())


def test_a_mask_is_written_with_its_maps(runs, images, tmp_path):
    run = open_run(runs["segmentation"], mc_samples=2, keep_prob=0.5)
    file = next(iter(images))
    predict(run, {file: "a.png"}, tmp_path)
    (image,) = json.loads((tmp_path / "predictions.json").read_text())["images"]
    assert image["uncertainty"].keys() == {"probability", "std", "entropy", "mutual_information"}
    for entry in image["uncertainty"].values():
        with Image.open(tmp_path / entry["file"]) as file:
            assert file.size == (28, 28)
    assert image["uncertainty"]["mutual_information"]["max"] > 1e-4
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width > 2 * picture.height  # three panels and a bar
