"""Opening a run, or what was exported of one."""

import os

from etils import epath

from prediction.predictor import Predictor
from prediction.trained import TrainedRun
from training import multihost
from training.config import ConfigError


def open_run(
    path: str | os.PathLike,
    checkpoint: str = "latest",
    *,
    checkpoint_dir: str | os.PathLike | None = None,
    min_score: float | None = None,
    cam: bool = False,
    mc_samples: int | None = None,
    keep_prob: float | None = None,
    seed: int | None = None,
) -> Predictor:
    """A trained network that predicts, of a run's folder or of an exported one.

    Args:
      path: the run's workdir, which holds `config.json`, or a folder with `predict.json`.
      checkpoint: of a run: "latest", "best", or a step.
      checkpoint_dir: where the run's checkpoints are; by default in `path`.
      min_score: of a detector: the least score of a box; by default the config's.
      cam: of a classifier: class activation maps are predicted too.
      mc_samples: how many predictions are drawn with dropping on, of which the mean and the spread
        are told (docs/uncertainty.md); by default nothing is dropped.
      keep_prob: of these, before the places' factors; by default that of training.
      seed: of what they drop; by default the run's. The draws go on from batch to batch.

    Raises:
      ConfigError: the folder holds neither, or its weights are damaged or of another model; or an
        argument is of another kind of network.
    """
    if mc_samples is None and (keep_prob is not None or seed is not None):
        raise ConfigError("keep_prob and seed are of predictions that are drawn: give mc_samples")
    if mc_samples is not None and mc_samples < 1:
        raise ConfigError(f"mc_samples must be at least 1, got {mc_samples}")
    folder = epath.Path(path)
    kinds = ("config.json", "predict.json")
    # On several hosts only process 0 need have the run's folder.
    there = multihost.from_process_0(lambda: [(folder / kind).exists() for kind in kinds])
    if not any(there):
        raise ConfigError(
            f"{folder} holds neither a training run (config.json) nor an exported one "
            "(predict.json): give the --workdir of one"
        )
    if there[0]:
        directory = epath.Path(checkpoint_dir or folder / "checkpoints")
        config = multihost.read_config(folder / "config.json")
        return TrainedRun(
            config,
            directory,
            checkpoint,
            min_score=min_score,
            cam=cam,
            mc_samples=mc_samples,
            keep_prob=keep_prob,
            seed=seed,
        )
    if mc_samples is not None:
        raise ConfigError(
            f"{folder} holds an exported network, which drops nothing: mc_samples needs the run's "
            "own workdir"
        )
    from prediction.exported import ExportedRun

    return ExportedRun(folder, min_score=min_score, cam=cam)
