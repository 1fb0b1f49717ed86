"""Evaluates a checkpoint of a run on its task's metrics.

    python evaluate.py --workdir runs/mnist
    python evaluate.py --workdir runs/mnist --keep_prob 0.8 --block_size 5

With --keep_prob the drop sites act during evaluation, BatchNorm in eval mode, each place with its
factor: the paper's Figure 5. Prints one JSON object. Exit codes: 0 done, 2 bad input.
"""

import functools
import json
import pathlib

import jax
from absl import flags

from inputs.images import DataError
from tasks import make_task
from training import config as config_lib
from training import memory, multihost, plots, sharding
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
_OUT = flags.DEFINE_string("out", None, "Folder for examples.png and, say, detections.json.")
_BLOCK_SIZE = flags.DEFINE_integer("block_size", None, "Block to drop. Default: the run's.")


def main(_) -> int:
    multihost.initialize()
    memory.keep_freed()
    workdir = pathlib.Path(_WORKDIR.value)
    config = config_lib.from_json(workdir / "config.json")
    if _DATA_DIR.value is not None:
        config.data.dir = _DATA_DIR.value
    if _SPLIT.value is not None:
        config.data.eval_split = _SPLIT.value
    if _BLOCK_SIZE.value is not None:
        if _KEEP_PROB.value is None:
            raise ConfigError("--block_size needs --keep_prob: without it nothing is dropped")
        with config.ignore_type():  # the run's may have been a tuple
            config.drop.block_size = _BLOCK_SIZE.value
    result = evaluate(
        config,
        _CHECKPOINT_DIR.value or workdir / "checkpoints",
        _CHECKPOINT.value,
        keep_prob=_KEEP_PROB.value,
        out=None if _OUT.value is None else pathlib.Path(_OUT.value),
    )
    if jax.process_index() == 0:
        print(json.dumps(result, indent=2))
    return 0


def evaluate(config, checkpoint_dir, checkpoint="latest", *, keep_prob=None, out=None) -> dict:
    """The task's metrics of a checkpoint over `config.data.eval_split`.

    Args:
      config: of the run.
      checkpoint_dir: where its checkpoints are.
      checkpoint: "latest", "best", or a step.
      keep_prob: drop during evaluation, DropBlock where the run itself dropped nothing.
      out: a folder for the picture and the files that the task writes of an evaluation.

    Raises:
      ConfigError, DataError: bad input.
    """
    if keep_prob is not None:
        config.drop.keep_prob = keep_prob
        if config.drop.kind == "none":
            config.drop.kind = "dropblock"
        config.model.head_keep_prob = 1.0  # the drop sites alone are to act
    mesh = sharding.make_mesh()
    # Padded and masked, so the batch may be what these devices divide.
    config.batch_size = -(-config.batch_size // mesh.size) * mesh.size
    plan = make_plan(config, functools.partial(make_task, train=False))
    with Checkpoints(checkpoint_dir, keep=None, best_metric=plan.task.best_metric) as checkpoints:
        step = checkpoints.step_of(checkpoint)
        state = checkpoints.restore(plan.abstract_state(mesh), step=step)
    run = make_evaluate(
        plan,
        mesh,
        keep_prob=1.0 if keep_prob is None else keep_prob,
        dropping=keep_prob is not None,
    )
    evaluation = run(variables(state), jax.random.key(config.seed))
    if out is not None and jax.process_index() == 0:
        plots.save_figure(evaluation.picture, out / "examples.png")
        for name, text in evaluation.files.items():
            config_lib.write(out / name, text)
    return {"step": int(state["step"])} | evaluation.metrics


if __name__ == "__main__":
    config_lib.run(main, DataError)
