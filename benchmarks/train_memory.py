"""What a training step holds on each device, by the compiler's own plan: remat against none.

    python -m benchmarks.train_memory --topology v5e:2x2      # AmoebaNet-B at 331, 64 images a chip
    python -m benchmarks.train_memory --remat cells           # for this machine's devices

With --topology the step is compiled for one chip of a TPU that need not be there: `pip install -e
'.[train,tpu]' -c constraints.txt`. What does not fit its memory is refused by the compiler, whose
sentence is printed. On a CPU half precision may be kept in float32.
"""

import argparse
import importlib
import time

import jax

from benchmarks.accelerators import tpu
from models.amoebanet import REMAT
from tasks import make_task
from training.memory import peak_bytes
from training.plan import make_plan


def report(name: str, batch_size: int, remat: str, devices) -> str:
    """What the compiler says of a config's training step, in a line."""
    config = importlib.import_module(f"configs.{name}").get_config("dropblock")
    config.batch_size, config.model.remat = batch_size, remat
    plan = make_plan(config, make_task, devices, need_data=False)
    lowered = plan.lower_train_step()
    began = time.monotonic()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return next(line for line in str(error).splitlines() if line.strip())
    memory = compiled.memory_analysis()
    assert memory is not None
    return (
        f"{peak_bytes(compiled) / 1e9:.2f} GB, {memory.temp_size_in_bytes / 1e9:.2f} GB of them "
        f"temporary; {time.monotonic() - began:.0f} s to compile"
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="imagenet_amoebanet_b", help="an AmoebaNet of configs/")
    parser.add_argument("--batch_size", type=int, default=64, help="of one device")
    parser.add_argument("--remat", nargs="+", default=list(REMAT), choices=REMAT)
    parser.add_argument("--topology", help="such as v5e:2x2; default: this machine's device")
    args = parser.parse_args()

    device = jax.devices()[0] if args.topology is None else tpu(args.topology)[0]
    print(f"{args.config}, {args.batch_size} images on one {device.device_kind}", flush=True)
    for remat in args.remat:
        print(f"remat {remat}: {report(args.config, args.batch_size, remat, [device])}", flush=True)


if __name__ == "__main__":
    main()
