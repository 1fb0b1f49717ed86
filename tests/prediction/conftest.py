"""Runs whose weights are random, for what predicts with them."""

import pytest

import random_runs
import tiny
import tiny_detection
import tiny_segmentation

_TASKS = {"classification": tiny, "detection": tiny_detection, "segmentation": tiny_segmentation}


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """A workdir for each task, which holds a checkpoint of random numbers, of step 12."""
    folders = {}
    for task, module in _TASKS.items():
        folder = folders[task] = tmp_path_factory.mktemp("runs") / task
        config = module.get_config()
        metric = {"classification": "top1", "detection": "AP", "segmentation": "mIoU"}[task]
        random_runs.save(config, folder / "checkpoints", 12, {metric: 50.0})
        (folder / "checkpoints" / "config.json").rename(folder / "config.json")
    return folders
