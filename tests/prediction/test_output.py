"""What predict.py leaves."""

import csv
import json
import re
import sys

import faster_coco_eval
import jax
import numpy as np
import pytest
from PIL import Image

import predict
from configs import cifar10_amoebanet
from photos import photo
from prediction import open_run
from prediction.cam import make_maps
from prediction.images import pictures_of
from processes import finish, start_command
from tasks import make_task
from tasks.segmentation import resize_to_original
from training.config import ConfigError
from training.files import WriteError
from training.plan import make_plan


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three gray photographs of their own sizes, and a file that is none."""
    folder = tmp_path_factory.mktemp("photos")
    for seed, (height, width) in enumerate(((30, 50), (60, 28), (40, 40))):
        pixels = photo(height, width, seed)[..., 0]
        Image.fromarray(pixels).save(folder / f"{seed}.png")
    (folder / "text.jpg").write_text("no image")
    return folder


def left(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def predicted(run, photos, out, **options):
    counts = predict.predict(run, pictures_of([str(photos)], out), out, **options)
    assert counts == {"images": 3, "skipped": 1}
    result = json.loads((out / "predictions.json").read_text())
    assert [image["file_name"] for image in result["images"]] == [
        str(photos / f"{number}.png") for number in range(3)
    ]
    sizes = [(image["height"], image["width"]) for image in result["images"]]
    assert sizes == [(30, 50), (60, 28), (40, 40)]
    (skipped,) = result["skipped"]
    assert skipped["file_name"] == str(photos / "text.jpg")
    assert skipped["reason"] == f"{photos / 'text.jpg'} cannot be decoded (it is no image)"
    assert result["info"]["step"] == 12 and result["info"]["weights"] == run.weights
    return result


PICTURES = {"0.png", "1.png", "2.png"}


def test_boxes_are_a_file_of_cocos(opened, photos, tmp_path, capsys):
    out = tmp_path / "out"
    result = predicted(opened["detection"], photos, out)
    assert left(out) == {"predictions.json", *PICTURES}
    assert "x, y, width, height" in result["info"]["description"]
    coco = faster_coco_eval.COCO(str(out / "predictions.json"))
    assert [c["name"] for c in coco.loadCats(range(1, 11))] == list("0123456789")
    for image in result["images"]:
        found = coco.loadAnns(coco.getAnnIds(image["id"]))
        assert 0 < len(found) <= 50
        corners = np.array([found["bbox"] for found in found])
        corners[:, 2:] += corners[:, :2]
        assert corners.min() >= 0
        assert (corners.max(0)[2:] <= (image["width"] + 1e-4, image["height"] + 1e-4)).all()
    ids = [annotation["id"] for annotation in result["annotations"]]
    assert ids == list(range(1, len(ids) + 1))
    said = capsys.readouterr()
    assert f"3 images predicted, in {out}" in said.out and "skipped: " in said.out
    assert said.err == f"error: 1 image could not be read, named in {out}/predictions.json\n"


def test_masks_are_class_indices_at_the_images_own_size(opened, photos, tmp_path):
    out, run = tmp_path / "out", opened["segmentation"]
    result = predicted(run, photos, out)
    masks = {f"masks/{name}" for name in PICTURES}
    assert left(out) == {"predictions.json", *PICTURES, *masks}
    names = {category["name"]: category["id"] for category in result["categories"]}
    assert names["background"] == 0 and len(names) == 11
    predictions = list(run.each([*sorted(photos.glob("*.png")), photos / "text.jpg"]))
    for entry, found in zip(result["images"], predictions, strict=False):
        with Image.open(out / entry["mask"]) as file:
            assert file.mode == "P" and len(file.getpalette()) == 3 * 256
            mask = np.asarray(file)
        assert mask.shape == (entry["height"], entry["width"])
        logits = resize_to_original(found["logits"], run.task.stride, found["scale"], mask.shape)
        top = np.sort(logits, -1)
        clear = top[..., -1] > top[..., -2] + 1e-3
        np.testing.assert_array_equal(mask[clear], np.asarray(logits).argmax(-1)[clear])
        assert clear.mean() > 0.9
        counts = {name: int((mask == id).sum()) for name, id in names.items()}
        assert entry["pixels"] == {name: count for name, count in counts.items() if count}


@pytest.mark.parametrize("all_classes", [False, True])
def test_classes_are_a_table(opened, photos, tmp_path, all_classes):
    out, run = tmp_path / "out", opened["classification"]
    result = predicted(run, photos, out, draw=False, all_classes=all_classes)
    assert left(out) == {"predictions.json", "predictions.csv"}
    rows = list(csv.DictReader((out / "predictions.csv").read_text().splitlines()))
    assert [row["file"] for row in rows] == [image["file_name"] for image in result["images"]]
    for row, image in zip(rows, result["images"], strict=True):
        best = image["top5"]
        assert row["class"] == best[0]["class"]
        assert float(row["probability"]) == best[0]["probability"]
        if all_classes:
            each = {name: float(row[name]) for name in run.class_names}
            assert each == image["probabilities"] and sum(each.values()) == pytest.approx(1)
            assert max(each, key=each.__getitem__) == row["class"]
        else:
            assert [row[f"class{n}"] for n in (2, 3, 4, 5)] == [c["class"] for c in best[1:]]
            assert float(row["probability5"]) == best[4]["probability"]
            assert "probabilities" not in image and len(row) == 11


def test_a_run_that_ends_too_soon_leaves_what_was_there(opened, photos, tmp_path, monkeypatch):
    out, run = tmp_path / "out", opened["classification"]
    out.mkdir()
    for name in ("predictions.json", "predictions.csv"):
        (out / name).write_text("of before")
    monkeypatch.setattr(run.task, "picture", stopped := Stopped(run.task.picture))
    with pytest.raises(KeyboardInterrupt):
        predict.predict(run, pictures_of([str(photos)], out), out)
    assert stopped.calls == 2
    assert left(out) == {"predictions.json", "predictions.csv", "0.png"}
    assert {path.read_text() for path in out.glob("predictions.*")} == {"of before"}


class Stopped:
    def __init__(self, call):
        self.calls, self._call = 0, call

    def __call__(self, *arguments):
        self.calls += 1
        if self.calls == 2:
            raise KeyboardInterrupt
        return self._call(*arguments)


def test_nothing_but_unreadable_files(opened, tmp_path, capsys):
    (tmp_path / "text.jpg").write_text("no image")
    out, run = tmp_path / "out", opened["classification"]
    files = pictures_of([str(tmp_path / "text.jpg")], out)
    assert predict.predict(run, files, out) == {"images": 0, "skipped": 1}
    assert json.loads((out / "predictions.json").read_text())["images"] == []
    assert "0 images predicted" in capsys.readouterr().out


def test_a_folder_that_cannot_be_made_is_named(opened, photos, tmp_path):
    (tmp_path / "file").write_text("")
    out, run = tmp_path / "file" / "out", opened["classification"]
    with pytest.raises(WriteError, match=f"^{out} cannot be written"):
        predict.predict(run, pictures_of([str(photos)], out), out)


# --- Class activation maps; that of a network's output is in tests/experiments/test_trained.py.


def test_maps_speak_for_the_likeliest_class(opened_with_maps, photos, tmp_path):
    out, run = tmp_path / "out", opened_with_maps
    result = predicted(run, photos, out)
    assert left(out) >= {f"cam/{name}" for name in PICTURES}
    assert [image["cam"] for image in result["images"]] == ["cam/0.png", "cam/1.png", "cam/2.png"]
    bias = run.variables["params"]["head"]["bias"]
    for found in list(run.each([photos / "0.png", photos / "1.png", *[photos / "2.png"] * 2])):
        best = found["logits"].argmax()
        # The mean of the map is the logit less its bias.
        want = float(found["logits"][best] - bias[best])
        assert found["cam"].mean() == pytest.approx(want, rel=1e-3, abs=1e-4)


def test_an_amoebanets_map_is_of_its_last_cell():
    config = cifar10_amoebanet.get_config("baseline")
    config.model.update(cells_per_stack=1, filters=4, head_keep_prob=1.0)
    config.update(aux_weight=0.0)
    config.data.update(image_size=8, num_train_examples=8, num_eval_examples=8)
    plan = make_plan(config, make_task, jax.devices(), need_data=False)
    random = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda x: np.abs(random.normal(size=x.shape)).astype(x.dtype),
        {name: plan.abstract_state[name] for name in ("params", "batch_stats")},
    )
    batch = {"image": random.integers(0, 256, (3, 8, 8, 3), np.uint8)}
    labels, maps_of = np.array([2, 0, 7]), make_maps(plan)

    @jax.jit
    def both(variables):
        image = plan.task.inputs(batch)
        out, _ = plan.network.apply(*variables.values(), image, train=False)
        return out["logits"], maps_of(variables, batch, labels)

    logits, maps = both(variables)
    bias = variables["params"]["head"]["bias"][labels]
    want = np.take_along_axis(logits, labels[:, None], 1)[:, 0] - bias
    np.testing.assert_allclose(maps.mean((1, 2)), want, rtol=1e-4)


def test_a_networks_map_has_to_be_known(runs):
    with pytest.raises(ConfigError, match="class activation maps are for classifiers"):
        open_run(runs["segmentation"], cam=True)


# --- The command.


def test_help_tells_the_defaults_and_is_no_failure():
    output = finish(start_command([sys.executable, "predict.py", "--help"]))
    assert "Exit codes: 0 done, 2 bad input" in output
    assert re.search(r"--\[no\]multihost: [^(]*\([^)]*\)\.\s*\(default: 'false'\)", output)
    assert re.search(r"--checkpoint: [^(]*\(default: 'latest'\)", output)
