"""Evaluates a checkpoint of a run on its task's metrics.

    python evaluate.py --workdir runs/mnist
    python evaluate.py --workdir runs/mnist --keep_prob 0.8 --block_size 5
    python evaluate.py --workdir runs/mnist --mc_samples 30

With --keep_prob the drop sites act during evaluation, BatchNorm in eval mode, each place with its
factor: the paper's Figure 5. With --mc_samples they act in so many predictions of each example,
whose mean is evaluated and judged beside the plain prediction: docs/uncertainty.md. Prints one JSON
object. Exit codes: 0 done, 2 bad input, 4 disk full or not to be written to.
"""

import json
import pathlib
import sys

import jax
from absl import flags

from inputs import memory
from inputs.images import DataError
from tasks import make_task
from tasks.drop import drop_at_inference
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
        "keep_prob",
        None,
        "Drop during evaluation, at this keep_prob. Default: nothing is dropped, but with "
        "--mc_samples at the run's.",
    )
    mc_samples = flags.DEFINE_integer(
        "mc_samples",
        None,
        "Evaluate the mean of so many predictions with dropping on, beside the plain one. Default: "
        "the plain one alone.",
        lower_bound=1,
    )
    seed = flags.DEFINE_integer(
        "seed", None, "Of what is dropped. Default: the run's.", lower_bound=0
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
        drops = keep_prob.value is not None or mc_samples.value is not None
        for flag in (block_size, seed):
            if flag.value is not None and not drops:
                raise ConfigError(f"--{flag.name} needs --keep_prob: without it nothing is dropped")
        if seed.value is not None:
            config.seed = seed.value
        if block_size.value is not None:
            with config.ignore_type():  # the run's may have been a tuple
                config.drop.block_size = block_size.value
        result = evaluate(
            config,
            checkpoint_dir.value or run / "checkpoints",
            checkpoint.value,
            keep_prob=keep_prob.value,
            mc_samples=mc_samples.value,
            out=None if out.value is None else pathlib.Path(out.value),
        )
        if jax.process_index() == 0:
            print(json.dumps(result, indent=2))
        return 0

    config_lib.run(command, DataError, leave=multihost.leave)


def evaluate(
    config, checkpoint_dir, checkpoint="latest", *, keep_prob=None, mc_samples=None, out=None
) -> dict:
    """The task's metrics of a checkpoint over `config.data.eval_split`.

    Args:
      config: of the run.
      checkpoint_dir: where its checkpoints are.
      checkpoint: "latest", "best", or a step.
      keep_prob: drop during evaluation, DropBlock where the run itself dropped nothing.
      mc_samples: evaluate the plain prediction, and the mean of so many with dropping on, at
        keep_prob or that of training.
      out: a folder for the picture and the files that the task writes of an evaluation.

    Returns:
      The metrics; with `mc_samples` those of the plain prediction under `plain` and of the mean
      under `mc`, both with the task's `judge`.

    Raises:
      ConfigError, DataError: bad input.
    """
    drops = keep_prob is not None or mc_samples is not None
    with config_lib.arguments_are_config():
        keep_prob = drop_at_inference(config, keep_prob) if drops else 1.0
    if jax.process_index() == 0:
        print("opening the data and building the network", file=sys.stderr, flush=True)
    plan = make_plan(config, make_task, jax.devices(), train=False)
    multihost.hold_config_to_process_0(config)
    count = plan.task.num_eval
    total = count if mc_samples is None else 2 * count
    with Progress(total, unit="example", stderr=True) as progress:
        with progress.doing(f"reading the checkpoint ({checkpoint})"):
            state = plan.restore(checkpoint_dir, checkpoint)
        progress.print(f"using the {weights(state, checkpoint_dir)}")

        def run(begun=0, draw=True, **options):
            evaluate = make_evaluate(
                plan,
                compiling=progress.compiling,
                tell=lambda done, _: progress.step(begun + done),
                **options,
            )
            return evaluate(variables(state), keep_prob, draw=draw)

        result: dict = {"step": int(state["step"])}
        if mc_samples is None:
            evaluation = run(drop=drops)
            result |= evaluation.metrics
        else:
            plain = run(judge=True, draw=False)
            evaluation = run(count, mc_samples=mc_samples, judge=True)
            result |= {"mc_samples": mc_samples, "keep_prob": keep_prob}
            result |= {"plain": plain.metrics, "mc": evaluation.metrics}
    if out is not None:
        if evaluation.picture is not None:
            plots.save_figure(evaluation.picture, out / "examples.png")
        for name, text in evaluation.files.items():
            write(out / name, text)
    return result


if __name__ == "__main__":
    main()
