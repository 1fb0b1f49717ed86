"""What DropBlock costs a whole training step: time and peak memory, with and without it.

    python -m benchmarks.train_step                                         # ResNet-50
    python -m benchmarks.train_step --config mnist_resnet --batch_size 100  # `make train`

The steps of a config as it is and without dropping, on random images, in the same rounds and in
random order, at the keep_prob where the schedule ends. Peak memory is XLA's own plan:
arguments, outputs that are no arguments, and temporaries.
"""

import argparse
import importlib
import os
import platform

import jax
import numpy as np

from benchmarks.timing import side_by_side
from inputs.memory import keep_freed
from tasks import make_task
from training.memory import peak_bytes
from training.plan import make_plan

VARIANTS = ("baseline", "dropblock")


def config_of(name, variant):
    """The config of configs/<name>.py as it is, or as a "baseline" that drops nothing."""
    config = importlib.import_module(f"configs.{name}").get_config()
    if variant == "baseline":
        config.drop.kind = "none"
    return config


def prepare(config):
    """A function that runs one step, and the step's peak memory in bytes."""
    plan = make_plan(config, make_task, jax.devices(), need_data=False)
    random = np.random.default_rng(0)
    batch = {
        name: random.integers(0, 256 if name == "image" else 10, array.shape).astype(array.dtype)
        for name, array in plan.abstract_batch.items()
    }
    batch, key, state = plan.put_batch(batch), plan.key, plan.create()
    step = plan.compiled_train_step
    peak = peak_bytes(step)
    held = [state]

    def run():
        held[0], metrics = step(held[0], batch, key)
        return held[0], metrics

    return run, peak


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="imagenet_resnet50", help="a file in configs/")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    keep_freed()  # as train.py does

    cases, peaks = {}, {}
    for variant in VARIANTS:
        config = config_of(args.config, variant)
        config.batch_size, config.dtype = args.batch_size, args.dtype
        config.drop.schedule = "constant"
        cases[variant], peaks[variant] = prepare(config)
    seconds = side_by_side(cases, args.rounds)

    print(
        f"{args.config}, batch {args.batch_size}, {args.dtype}: {jax.devices()[0].device_kind} "
        f"({platform.machine()}), {os.cpu_count()} CPU cores, jax {jax.__version__}, "
        f"median of {args.rounds} rounds"
    )
    for variant in VARIANTS:
        print(
            f"  {variant}: {seconds[variant] * 1e3:.1f} ms, "
            f"{args.batch_size / seconds[variant]:.1f} images/s, {peaks[variant] / 1e6:.1f} MB"
        )
    time, memory = (of["dropblock"] / of["baseline"] for of in (seconds, peaks))
    print(f"  ratio: {time:.3f} in time, {memory:.3f} in peak memory")


if __name__ == "__main__":
    main()
