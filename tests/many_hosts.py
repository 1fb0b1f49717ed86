"""What each of several processes runs for tests/test_multihost.py: parts of all tasks, in a row."""

import contextlib
import importlib
import json
import pathlib
import sys

import jax
import pytest
from jax.experimental import multihost_utils

import evaluate
import predict
import train
from prediction import open_run
from prediction.images import pictures_of
from processes import StopsAt
from training import multihost


def main(how: str, folder: str, images: str, *tasks: str):
    """Trains three steps of each task, evaluates and predicts with what was saved."""
    multihost.initialize(how)
    for task in tasks:
        workdir = pathlib.Path(folder) / task
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(train, "StopSignals", lambda *_: contextlib.nullcontext(StopsAt(3)))
            assert train.train(importlib.import_module(task).get_config(), workdir) == 143
        run = multihost.read_config(workdir / "config.json"), workdir / "checkpoints"
        found = {"evaluated": evaluate.evaluate(*run, out=workdir / "evaluated")}
        if task != "tiny_segmentation":  # it is the same for all, and pictures take long
            out = workdir / "predicted"
            found["predicted"] = predict.predict(open_run(workdir), pictures_of([images], out), out)
        (workdir / f"found_{jax.process_index()}.json").write_text(json.dumps(found))
    if jax.process_count() > 1:
        # Orbax has no part in agreeing on when to stop.
        with pytest.raises(RuntimeError, match="has not been initialized"):
            multihost_utils.reached_preemption_sync_point(1)
    multihost.leave(0, None, "")


if __name__ == "__main__":
    main(*sys.argv[1:])
