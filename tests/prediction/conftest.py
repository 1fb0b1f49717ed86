"""Runs whose weights are random, for what predicts with them."""

import jax
import pytest

import random_runs
import tiny
import tiny_detection
import tiny_segmentation
from prediction import open_run

_RUNS = {
    "classification": (tiny, "top1"),
    "detection": (tiny_detection, "AP"),
    "segmentation": (tiny_segmentation, "mIoU"),
}


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """A workdir for each task, which holds a checkpoint of random numbers, of step 12."""
    folders = {}
    for task, (module, metric) in _RUNS.items():
        folder = folders[task] = tmp_path_factory.mktemp("runs") / task
        random_runs.save(module.get_config(), folder / "checkpoints", 12, {metric: 50.0})
        (folder / "checkpoints" / "config.json").rename(folder / "config.json")
    return folders


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    """Quicker to compile for than eight."""
    one = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: one)


def _opened(folder, **arguments):
    with pytest.MonkeyPatch.context() as patch:
        one = jax.devices()[:1]
        patch.setattr(jax, "devices", lambda: one)
        return open_run(folder, **arguments)


@pytest.fixture(scope="session")
def opened(runs):
    """The runs, opened."""
    return {task: _opened(runs[task]) for task in runs}


@pytest.fixture(scope="session")
def opened_with_maps(runs):
    """The classifier, which tells class activation maps."""
    return _opened(runs["classification"], cam=True)
