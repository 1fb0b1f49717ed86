"""Evaluates a checkpoint of a run on its task's metrics.

    python evaluate.py --workdir runs/mnist
    python evaluate.py --workdir runs/mnist --keep_prob 0.8 --block_size 5

With --keep_prob the drop sites act during evaluation, BatchNorm in eval mode, each place with its
factor: the paper's Figure 5. Prints one JSON object. Exit codes: 0 done, 2 bad input, 4 disk full
or not to be written to.
"""

import json
import pathlib
import sys

import jax
from absl import flags

from inputs import memory
from inputs.images import DataError
from tasks import make_task
from training import compilation, multihost, plots
from training import config as config_lib
from training.config import ConfigError
from training.evaluation import make_evaluate
from training.files import write
from training.logging import Progress
from training.plan import make_plan
from training.state import variables, weights


def main():
    """The command: its flags, and what they say."""
    workdir = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
    checkpoint = flags.DEFINE_string("checkpoint", "latest", "latest, best, or a step.")
    checkpoint_dir = flags.DEFINE_string(
        "checkpoint_dir", None, "Where the checkpoints are. Default: WORKDIR/checkpoints."
    )
    data_dir = flags.DEFINE_string("data_dir", None, "Where the data is now, if it has moved.")
    split = flags.DEFINE_string("split", None, "Split to evaluate. Default: the run's eval_split.")
    keep_prob = flags.DEFINE_float(
        "keep_prob", None, "Drop during evaluation, at this keep_prob. Default: nothing is dropped."
    )
    block_size = flags.DEFINE_integer("block_size", None, "Block to drop. Default: the run's.")
    out = flags.DEFINE_string(
        "out",
        None,
        "Folder for examples.png and, say, detections.json. Default: they are not written.",
    )
    hosts = flags.DEFINE_flag(config_lib.optional_value("multihost", None, multihost.HELP))

    def command(_) -> int:
        multihost.initialize(hosts.value)
        run = pathlib.Path(workdir.value)
        memory.keep_freed()
        compilation.keep_compiled(run.parent)
        config = multihost.read_config(run / "config.json")
        if data_dir.value is not None:
            config.data.dir = data_dir.value
        if split.value is not None:
            config.data.eval_split = split.value
        if block_size.value is not None:
            if keep_prob.value is None:
                raise ConfigError("--block_size needs --keep_prob: without it nothing is dropped")
            with config.ignore_type():  # the run's may have been a tuple
                config.drop.block_size = block_size.value
        result = evaluate(
            config,
            checkpoint_dir.value or run / "checkpoints",
            checkpoint.value,
            keep_prob=keep_prob.value,
            out=None if out.value is None else pathlib.Path(out.value),
        )
        if jax.process_index() == 0:
            print(json.dumps(result, indent=2))
        return 0

    config_lib.run(command, DataError, leave=multihost.leave)


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
    if jax.process_index() == 0:
        print("opening the data and building the network", file=sys.stderr, flush=True)
    plan = make_plan(config, make_task, jax.devices(), train=False)
    multihost.hold_config_to_process_0(config)
    with Progress(plan.task.num_eval, unit="example", stderr=True) as progress:
        with progress.doing(f"reading the checkpoint ({checkpoint})"):
            state = plan.restore(checkpoint_dir, checkpoint)
        progress.print(f"using the {weights(state, checkpoint_dir)}")
        run = make_evaluate(
            plan,
            drop=keep_prob is not None,
            compiling=progress.compiling,
            tell=lambda done, _: progress.step(done),
        )
        evaluation = run(variables(state), 1.0 if keep_prob is None else keep_prob)
    if out is not None:
        if evaluation.picture is not None:
            plots.save_figure(evaluation.picture, out / "examples.png")
        for name, text in evaluation.files.items():
            write(out / name, text)
    return {"step": int(state["step"])} | evaluation.metrics


if __name__ == "__main__":
    main()
