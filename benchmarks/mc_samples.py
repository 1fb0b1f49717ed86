"""What predictions with DropBlock on cost: N samples over one plain prediction.

    python -m benchmarks.mc_samples
    python -m benchmarks.mc_samples --config imagenet_resnet50 --batch_size 8

The evaluation step of a config, on random images, plain and with samples, in the same rounds and in
random order; and what XLA plans each to need of memory.
"""

import argparse
import importlib

import jax
import numpy as np

from benchmarks.timing import rounds
from tasks import make_task
from training.memory import peak_bytes
from training.plan import make_plan
from training.state import variables


def prepare(config, counts):
    """The step of each number of samples, None being the plain one, and their memory in bytes."""
    plan = make_plan(config, make_task, jax.devices(), train=False, need_data=False)
    random = np.random.default_rng(0)
    batch = {
        name: random.integers(0, 256 if name == "image" else 2, array.shape).astype(array.dtype)
        for name, array in plan.abstract_batch.items()
    }
    batch |= {name: np.full(plan.batch_size, name == "mask") for name in ("mask", "skipped")}
    keep_prob = np.float32(config.drop.keep_prob)
    arguments = (variables(plan.create()), plan.put_batch(batch), plan.key, keep_prob)
    steps = {
        str(count or "plain"): plan.eval_step(mc_samples=count).lower(*arguments).compile()
        for count in counts
    }
    peaks = {name: peak_bytes(step) for name, step in steps.items()}
    return {name: lambda step=step: step(*arguments) for name, step in steps.items()}, peaks


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="fashion_mnist_1000_resnet", help="a file in configs/")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--samples", type=int, nargs="+", default=[1, 10, 30])
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    config = importlib.import_module(f"configs.{args.config}").get_config()
    config.batch_size = args.batch_size
    cases, peaks = prepare(config, [None, *args.samples])
    times = rounds(cases, args.rounds)
    plain = np.array(times["plain"])
    print("| samples | median ms | least ms | over one plain prediction, median (least) | MiB |")
    print("|---|---|---|---|---|")
    for name in cases:
        ms = 1e3 * np.array(times[name])
        ratio, least = np.median(ms) / np.median(plain) / 1e3, ms.min() / plain.min() / 1e3
        print(
            f"| {name} | {np.median(ms):.1f} | {ms.min():.1f} | {ratio:.2f} ({least:.2f}) "
            f"| {peaks[name] / 2**20:.0f} |"
        )


if __name__ == "__main__":
    main()
