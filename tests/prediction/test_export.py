"""export.py: files that compute what the run does, in a process without this code."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from PIL import Image

import export
import tiny
import tiny_detection
import tiny_segmentation
from exporting import card
from exporting.served import SERVED
from prediction import open_run
from processes import finish, once, start_command
from tasks import make_task
from training.config import ConfigError

BICUBIC, BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR
MISSING = [
    name for name in ("jax2onnx", "onnx", "onnxruntime") if not importlib.util.find_spec(name)
]

# What a user's process has: nothing of this folder, and none of what conftest.py says to JAX but to
# compile lightly.
ALONE = {"PATH": os.environ["PATH"], "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
IN_JAX = """
import json, sys
import numpy as np
from jax import export

for folder in sys.argv[1:]:
    model = export.deserialize(bytearray(open(f"{folder}/model.jax", "rb").read()))
    inputs = np.load(f"{folder}/inputs.npz")
    names = json.load(open(f"{folder}/predict.json"))["inputs"]
    for rows in (5, 2) if folder == sys.argv[1] else (5,):
        found = model.call(*(inputs[name][:rows] for name in names))
        np.savez(f"{folder}/jax-{rows}.npz", **{k: np.asarray(v) for k, v in found.items()})
"""
IN_ONNX = """
import sys
import numpy as np
import onnxruntime

for folder in sys.argv[1:]:
    model = onnxruntime.InferenceSession(f"{folder}/model.onnx")
    inputs = np.load(f"{folder}/inputs.npz")
    names = [output.name for output in model.get_outputs()]
    for rows in (5, 2):
        found = model.run(names, {x.name: inputs[x.name][:rows] for x in model.get_inputs()})
        np.savez(f"{folder}/onnx-{rows}.npz", **dict(zip(names, found)))
"""
CHECK = """
ours = {"dropblock", "training", "tasks", "exporting", "flax"}
assert not ours & set(sys.modules), ours & set(sys.modules)
"""


def batch_of(run):
    """Noise of several sizes, as the pipeline makes a batch of it."""
    random, data = np.random.default_rng(3), run.task.config.data
    transform, examples = run.task.transform(train=False), []
    for index in range(5):
        size = random.integers(20, 90, 2) if "augment" not in data else (data.image_size,) * 2
        image = random.integers(0, 256, (*size, data.channels), np.uint8)
        examples.append(transform(run.task.unlabeled(image, index), random))
    batch = {name: np.stack([x[name] for x in examples]) for name in examples[0]}
    return batch | {"mask": np.ones(5, bool), "skipped": np.zeros(5, bool)}


@pytest.fixture(scope="module")
def exported(opened, opened_with_maps, tmp_path_factory):
    """A folder for each task: what export.py wrote, `inputs.npz`, and the run's answers."""

    def make(root):
        before = dict(vars(jnp))
        for task, run in opened.items():
            folder, batch = epath.Path(root / task), batch_of(run)
            export.export(run, folder, name=task, onnx=not MISSING)
            np.savez(folder / "inputs.npz", **batch)
            found = run(batch)
            if task == "classification":
                found["activation_map"] = opened_with_maps(batch)["cam"]
            np.savez(folder / "run.npz", **found)
        # The converter would leave its own functions there.
        assert all(vars(jnp)[name] is value for name, value in before.items())
        return ""

    root, _ = once(tmp_path_factory, "exported", make)
    return {task: epath.Path(root / task) for task in opened}


@pytest.fixture
def copied(exported, tmp_path):
    """`exported`, to be damaged."""
    copies = {task: shutil.copytree(folder, tmp_path / task) for task, folder in exported.items()}
    return {task: epath.Path(folder) for task, folder in copies.items()}


def run_alone(script, folders):
    command = [sys.executable, "-I", "-c", script + CHECK, *map(str, folders.values())]
    done = subprocess.run(command, cwd="/", env=ALONE, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")


def check_found(kind, task, folder, tolerance):
    told, expected = card.read(folder), dict(np.load(folder / "run.npz"))
    files = list(folder.glob(f"{kind}-*.npz"))
    assert folder / f"{kind}-5.npz" in files
    for file in files:
        found, rows = dict(np.load(file)), int(file.stem.split("-")[1])
        assert set(found) == set(told["outputs"])
        for name, array in told["outputs"].items():
            shape = [rows if size == "batch" else size for size in array["shape"]]
            assert (list(found[name].shape), str(found[name].dtype)) == (shape, array["dtype"])
        for name in found.keys() & expected.keys():
            np.testing.assert_allclose(found[name], expected[name][:rows], tolerance, tolerance)
        if task == "classification":
            assert "activation_map" in found
            np.testing.assert_allclose(found["probabilities"].sum(-1), 1, rtol=1e-5)
            assert np.array_equal(found["probabilities"].argmax(-1), found["logits"].argmax(-1))
        elif task == "detection":
            assert len(np.unique(found["labels"])) > 3
        else:
            segmenter, size = open_run(folder).task, np.array(found["classes"].shape[1:])
            whole = {"scale": np.ones(2, np.float32), "original_size": size}
            # But for a pixel whose classes are all but equal.
            for logits, classes in zip(found["logits"], found["classes"], strict=True):
                mask = segmenter.mask(whole | {"logits": logits})
                assert (mask == classes).mean() > 0.999
                assert len(np.unique(classes)) > 1


def test_the_artefact_reproduces_the_run_without_our_code(exported):
    run_alone(IN_JAX, exported)
    for task, folder in exported.items():
        check_found("jax", task, folder, 1e-5)


@pytest.mark.skipif(bool(MISSING), reason=f"docs/export.md installs {', '.join(MISSING)}")
def test_onnx_reproduces_the_run_without_our_code(exported):
    run_alone(IN_ONNX, exported)
    for task, folder in exported.items():
        check_found("onnx", task, folder, 1e-4)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def edit(path, change):
    """Changes `predict.json`, with a right sum, as one would who knows of it."""
    content = json.loads(path.read_text())
    del content["sha256"]
    change(content)
    path.write_text(card.to_text(content))


DAMAGES = {
    "no predict.json": (
        lambda of: (of["detection"] / card.NAME).unlink(),
        "holds neither a training run",
    ),
    "predict.json cut short": (
        lambda of: os.truncate(of["detection"] / card.NAME, 300),
        "predict.json is damaged",
    ),
    "a bit of predict.json": (
        lambda of: (of["detection"] / card.NAME).write_text(
            (of["detection"] / card.NAME).read_text().replace('"nms_iou": 0.5', '"nms_iou": 0.4')
        ),
        "predict.json is not what was written",
    ),
    "no list": (lambda of: (of["detection"] / card.NAME).write_text("[]"), "not a JSON object"),
    "no classes": (
        lambda of: edit(of["detection"] / card.NAME, lambda told: told.pop("classes")),
        "predict.json has no list of classes",
    ),
    "empty classes": (
        lambda of: edit(of["detection"] / card.NAME, lambda told: told["classes"].clear()),
        "predict.json has no list of classes",
    ),
    "a class fewer": (
        lambda of: edit(of["detection"] / card.NAME, lambda told: told["classes"].pop()),
        "predict.json has other classes than its config",
    ),
    "a later format": (
        lambda of: edit(of["detection"] / card.NAME, lambda told: told.update(format=2)),
        "is of format 2",
    ),
    "no model": (lambda of: (of["detection"] / card.MODEL).unlink(), "model.jax is not there"),
    "a bit of the model": (
        lambda of: flip(of["detection"] / card.MODEL),
        "model.jax is damaged or of another export",
    ),
    "the model cut short": (
        lambda of: os.truncate(of["detection"] / card.MODEL, 1000),
        "model.jax is damaged or of another export",
    ),
    "another task's model": (
        lambda of: shutil.copy(of["segmentation"] / card.MODEL, of["detection"] / card.MODEL),
        "model.jax is damaged or of another export",
    ),
    "another task's predict.json": (
        lambda of: shutil.copy(of["segmentation"] / card.NAME, of["detection"] / card.NAME),
        "model.jax is damaged or of another export",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_or_of_another_export_is_one_sentence(copied, damage):
    harm, message = DAMAGES[damage]
    harm(copied)
    with pytest.raises(ConfigError, match=message) as caught:
        open_run(copied["detection"])
    assert "\n" not in str(caught.value)


def test_an_exported_folder_predicts_as_its_run_does(opened, exported):
    random = np.random.default_rng(0)
    # Five, of which the run is compiled already.
    sizes = [(28, 28), (70, 40), (64, 64), (20, 90), (33, 33)]
    images = [random.integers(0, 256, (*size, 1), np.uint8) for size in sizes]
    for task, run in opened.items():
        other = open_run(exported[task])
        assert (other.step, other.class_names) == (run.step, run.class_names)
        assert other.weights.startswith(run.weights.split(",")[0])
        for expected, found in zip(run.each(images), other.each(images), strict=True):
            for name in {*found} - {"probabilities", "activation_map"}:
                np.testing.assert_allclose(found[name], expected[name], 1e-5, 1e-5)
            assert run.task.describe(expected).keys() == other.task.describe(found).keys()


def test_an_exported_folder_draws_the_runs_class_activation_maps(exported):
    folder = exported["classification"]
    with np.load(folder / "inputs.npz") as batch, np.load(folder / "run.npz") as expected:
        found = open_run(folder, cam=True)(dict(batch))
        np.testing.assert_allclose(found["cam"], expected["activation_map"], 1e-5, 1e-5)
        assert "cam" not in open_run(folder)(dict(batch))


def test_what_an_exported_folder_does_not_hold(exported):
    with pytest.raises(ConfigError, match="class activation maps are for classifiers"):
        open_run(exported["segmentation"], cam=True)
    with pytest.raises(ConfigError, match="a least score is of boxes"):
        open_run(exported["classification"], min_score=0.5)
    opened = open_run(exported["detection"], min_score=0.5)
    assert opened.task.config.detection.min_score == 0.5


def by_hand(told, photograph):
    """The inputs, made of a gray photograph as predict.json tells."""
    size, (height, width) = told["size"], photograph.shape
    pixels = Image.fromarray(photograph)
    if "factor =" in told["words"]:
        factor = size / max(height, width)
        resized = [max(1, round(factor * side)) for side in (height, width)]
        image = np.full((size, size), told["fill"], np.uint8)
        image[: resized[0], : resized[1]] = pixels.resize(resized[::-1], BILINEAR)
        scale = np.divide(resized, (height, width))
        return {"image": image, "original_size": (height, width), "scale": scale}
    if "side = int" in told["words"]:
        side = int(told["fraction"] * min(height, width))
        top, left = (height - side + 1) // 2, (width - side + 1) // 2
        pixels = pixels.crop((left, top, left + side, top + side))
    elif "top = int" in told["words"]:
        top, left = (int((side - side * told["fraction"]) / 2) for side in (height, width))
        pixels = pixels.crop((left, top, width - left, height - top))
    filters = {
        name in told["words"]: one for name, one in (("BICUBIC", BICUBIC), ("BILINEAR", BILINEAR))
    }
    return {"image": np.asarray(pixels.resize((size, size), filters[True]))}


@pytest.mark.parametrize("kind", ["imagenet", "inception", "small", "detection", "segmentation"])
def test_predict_json_tells_how_inputs_are_made(kind):
    module = {"detection": tiny_detection, "segmentation": tiny_segmentation}.get(kind, tiny)
    config = module.get_config()
    if module is tiny:
        config.data.augment = kind
    task = make_task(config, train=False, evaluate=False)
    photograph = np.random.default_rng(0).integers(0, 256, (75, 41), np.uint8)
    example = task.unlabeled(photograph[..., None], 0)
    expected = task.transform(train=False)(example, np.random.default_rng(0))
    found = by_hand(SERVED[config.task].preparation(config), photograph)
    assert set(SERVED[config.task].all_inputs(config)) <= set(found)
    for name, given in found.items():
        given = np.asarray(given).reshape(expected[name].shape)
        np.testing.assert_allclose(given, expected[name], rtol=1e-6)


def test_the_commands(runs, exported, tmp_path):
    command = [sys.executable, "export.py", str(runs["classification"]), str(tmp_path / "out")]
    assert "exported the moving average (EMA)" in finish(start_command(command))
    folder = epath.Path(tmp_path / "out")
    assert card.read(folder)["workdir"] == "classification"
    assert (folder / card.MODEL).read_bytes() == (
        exported["classification"] / card.MODEL
    ).read_bytes()
    flip(folder / card.MODEL)
    image = tmp_path / "photograph.png"
    Image.new("RGB", (40, 30)).save(image)
    words = ["--workdir", str(folder), "--out", str(tmp_path / "found"), "--images", str(image)]
    output = finish(start_command([sys.executable, "predict.py", *words]), code=2)
    assert output.count("\n") == 1
    assert "model.jax is damaged" in output
