"""Opening a run's folder, and predicting in Python."""

import numpy as np
import pytest

import random_runs
import tiny
from prediction import open_run
from training.config import ConfigError


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    random_runs.save(tiny.get_config(), folder, 12, {"top1": 50.0})
    (folder / "checkpoints").mkdir()
    (folder / "12").rename(folder / "checkpoints" / "12")
    return folder


def test_predicts(workdir):
    run = open_run(workdir)
    images = [np.full((28, 28, 1), value, np.uint8) for value in range(3)]
    found = run.predict(images)
    print(run.weights, found[0], run.model)
