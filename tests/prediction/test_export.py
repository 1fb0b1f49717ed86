"""export.py: files that compute what the run does, in a process without this code."""

import importlib.util
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from etils import epath

import export
from exporting import card
from prediction import open_run
from processes import once

TASKS = ("classification", "detection", "segmentation")
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
    for rows in (5, 2):
        found = model.call(*(inputs[name][:rows] for name in names))
        np.savez(f"{folder}/found-{rows}.npz", **{k: np.asarray(v) for k, v in found.items()})
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
        np.savez(f"{folder}/found-{rows}.npz", **dict(zip(names, found)))
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
def exported(runs, tmp_path_factory):
    """A folder for each task: what export.py wrote, `inputs.npz`, and the run's answers."""

    def make(root):
        with pytest.MonkeyPatch.context() as patch:
            one = jax.devices()[:1]
            patch.setattr(jax, "devices", lambda: one)
            for task in TASKS:
                run, folder = open_run(runs[task]), epath.Path(root / task)
                export.export(run, folder, name=task, onnx=not MISSING)
                batch = batch_of(run)
                np.savez(folder / "inputs.npz", **batch)
                np.savez(folder / "run.npz", **run(batch))
        return ""

    root, _ = once(tmp_path_factory, "exported", make)
    return {task: epath.Path(root / task) for task in TASKS}


@pytest.fixture
def copied(exported, tmp_path):
    """`exported`, to be damaged."""
    return {task: epath.Path(shutil.copytree(folder, tmp_path / task))
            for task, folder in exported.items()}  # fmt: skip


def run_alone(script, folders):
    command = [sys.executable, "-I", "-c", script + CHECK, *map(str, folders.values())]
    done = subprocess.run(command, cwd="/", env=ALONE, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")


def check_found(task, folder, tolerance):
    told, expected = card.read(folder), dict(np.load(folder / "run.npz"))
    for rows in (5, 2):
        found = dict(np.load(folder / f"found-{rows}.npz"))
        assert set(found) == set(told["outputs"])
        for name, array in told["outputs"].items():
            shape = [rows if size == "batch" else size for size in array["shape"]]
            assert (list(found[name].shape), str(found[name].dtype)) == (shape, array["dtype"])
        for name in found.keys() & expected.keys():
            np.testing.assert_allclose(found[name], expected[name][:rows], tolerance, tolerance)
        if task == "classification":
            np.testing.assert_allclose(found["probabilities"].sum(-1), 1, rtol=1e-5)
            assert np.array_equal(found["probabilities"].argmax(-1), found["logits"].argmax(-1))
        elif task == "detection":
            assert len(np.unique(found["labels"])) > 3
        else:
            size = np.array(found["classes"].shape[1:])
            whole = {"scale": np.ones(2, np.float32), "original_size": size}
            # But for a pixel whose classes are all but equal.
            for logits, classes in zip(found["logits"], found["classes"], strict=True):
                mask = open_exported_task(folder).mask(whole | {"logits": logits})
                assert (mask == classes).mean() > 0.999
                assert len(np.unique(classes)) > 1


def open_exported_task(folder):
    return open_run(folder).task


def test_the_artefact_reproduces_the_run_without_our_code(exported, tmp_path):
    run_alone(IN_JAX, exported)
    for task, folder in exported.items():
        check_found(task, folder, 1e-5)


@pytest.mark.skipif(bool(MISSING), reason=f"docs/export.md installs {', '.join(MISSING)}")
def test_onnx_reproduces_the_run_without_our_code(exported):
    run_alone(IN_ONNX, exported)
    for task, folder in exported.items():
        check_found(task, folder, 1e-4)
