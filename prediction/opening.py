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
) -> Predictor:
    """A trained network that predicts, of a run's folder or of an exported one.

    Args:
      path: the run's workdir, which holds `config.json`, or a folder with `predict.json`.
      checkpoint: of a run: "latest", "best", or a step.
      checkpoint_dir: where the run's checkpoints are; by default in `path`.
      min_score: of a detector: the least score of a box; by default the config's.
      cam: of a classifier: class activation maps are predicted too.

    Raises:
      ConfigError: the folder holds neither, or its weights are damaged or of another model; or an
        argument is of another kind of network.
    """
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
        return TrainedRun(config, directory, checkpoint, min_score=min_score, cam=cam)
    from prediction.exported import open_exported

    return open_exported(folder, min_score=min_score, cam=cam)
