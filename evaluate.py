"""Evaluates a checkpoint of a run on its task's metrics.

    python evaluate.py --workdir runs/mnist
    python evaluate.py --workdir runs/mnist --keep_prob 0.8 --block_size 5 --samples 4

With --keep_prob the run's drop sites act during evaluation, BatchNorm in eval mode, each place with
its factor: the paper's Figure 5. Prints one JSON object.
"""

import json
import pathlib

import jax
from absl import flags

from tasks import make_task
from training import config as config_lib
from training import sharding
from training.checkpoints import Checkpoints
from training.config import ConfigError
from training.evaluation import make_evaluate
from training.plan import make_plan
from training.state import variables

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
_CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "latest, best, or a step.")
_CHECKPOINT_DIR = flags.DEFINE_string(
    "checkpoint_dir", None, "Where the checkpoints are. Default: WORKDIR/checkpoints."
)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where the data is now, if it has moved.")
_SPLIT = flags.DEFINE_string("split", None, "Split to evaluate. Default: the run's eval_split.")
_KEEP_PROB = flags.DEFINE_float("keep_prob", None, "Drop during evaluation, at this keep_prob.")
_BLOCK_SIZE = flags.DEFINE_integer("block_size", None, "Block to drop. Default: the run's.")
_SAMPLES = flags.DEFINE_integer("samples", 1, "Passes over the set, each with its own masks.")
_MULTIHOST = flags.DEFINE_bool("multihost", False, "Join the other hosts of a pod or cluster.")


def main(_) -> int:
    if _MULTIHOST.value:
        jax.distributed.initialize()
    workdir = pathlib.Path(_WORKDIR.value)
    config = config_lib.from_json(workdir / "config.json")
    if _DATA_DIR.value is not None:
        config.data.dir = _DATA_DIR.value
    if _SPLIT.value is not None:
        config.data.eval_split = _SPLIT.value
    if _BLOCK_SIZE.value is not None:
        config.drop.block_size = _BLOCK_SIZE.value
    for result in evaluate(
        config,
        _CHECKPOINT_DIR.value or workdir.absolute() / "checkpoints",
        _CHECKPOINT.value,
        keep_prob=_KEEP_PROB.value,
        samples=_SAMPLES.value,
    ):
        if jax.process_index() == 0:
            print(json.dumps(result), flush=True)
    return 0
