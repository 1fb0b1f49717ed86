"""What a training step holds on each device, by the compiler's own plan: remat against none.

    python -m benchmarks.train_memory --topology v5e          # AmoebaNet-B at 331, 64 images a chip
    python -m benchmarks.train_memory --remat cells           # for this machine's devices

With --topology the step is compiled for hardware that need not be there, as train.py's
--dry_run=compile does. On a CPU half precision may be kept in float32.
"""

import argparse
import importlib

import jax

from models.amoebanet import REMAT
from tasks import make_task
from training.compiled_step import compile_train_step
from training.config import ConfigError
from training.hardware import Topology, topology
from training.plan import make_plan


def report(name: str, batch_size: int, remat: str, devices, there: Topology | None) -> str:
    """What the compiler says of a config's training step, in a line."""
    config = importlib.import_module(f"configs.{name}").get_config("dropblock")
    config.batch_size, config.model.remat = batch_size * len(devices), remat
    plan = make_plan(config, make_task, devices, need_data=False)
    try:
        step = compile_train_step(plan, plan.lower_train_step(), there)
    except ConfigError as error:
        return str(error)
    return (
        f"{step.memory / 1e9:.2f} GB, {step.temporary / 1e9:.2f} GB of them temporary; "
        f"{step.seconds_to_compile:.0f} s to compile"
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="imagenet_amoebanet_b", help="an AmoebaNet of configs/")
    parser.add_argument("--batch_size", type=int, default=64, help="of one device")
    parser.add_argument("--remat", nargs="+", default=list(REMAT), choices=REMAT)
    parser.add_argument("--topology", help="such as v5e or v5e:2x2; default: this machine's device")
    args = parser.parse_args()

    there = None if args.topology is None else topology(args.topology)
    devices = jax.devices()[:1] if there is None else there.devices
    print(
        f"{args.config}, {args.batch_size} images on each of {len(devices)} "
        f"{devices[0].device_kind}",
        flush=True,
    )
    for remat in args.remat:
        said = report(args.config, args.batch_size, remat, devices, there)
        print(f"remat {remat}: {said}", flush=True)


if __name__ == "__main__":
    main()
