"""What a training step of AmoebaNet needs on each device, by shape alone: remat against none.

    python -m benchmarks.train_memory                     # AmoebaNet-B at 331, 64 images a device
    python -m benchmarks.train_memory --compile 1 2       # and XLA's own plan for so few images

The estimate is the state, its gradient, what the forward pass keeps for the backward pass, and,
with remat, what the backward pass of the largest cell keeps besides, and of the largest operation
in it if that is computed anew, too: all by `jax.eval_shape` of `jax.vjp`, in the config's dtype, as
if nothing were fused. What is compiled is compiled for this machine's device, where half precision
may be kept in float32.
"""

import argparse
import importlib
import time

import jax
import jax.numpy as jnp
from flax import nnx

from models.amoebanet import REMAT
from models.cells import Dropping
from tasks import make_task
from training import sharding
from training.plan import make_plan


def nbytes(tree) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def make(name: str, batch_size: int, remat: str):
    config = importlib.import_module(f"configs.{name}").get_config("dropblock")
    config.batch_size, config.model.remat = batch_size, remat
    return make_plan(config, lambda config: make_task(config, need_data=False))


def kept_bytes(plan) -> int:
    """What the forward pass keeps for the backward pass, but for the parameters themselves."""

    def residuals(state, batch, key):
        def loss(params):
            out, _ = plan.network.apply(
                params,
                state["batch_stats"],
                plan.task.inputs(batch),
                train=True,
                keep_prob=0.9,
                rng=key,
            )
            return plan.task.loss(out, batch)[0]

        return jax.vjp(loss, state["params"])[1]

    state = jax.eval_shape(plan.create, jax.random.key(0))
    batch = plan.task.batch_shapes(plan.config.batch_size)
    kept = jax.eval_shape(residuals, state, batch, jax.random.key(0))
    return nbytes(kept) - nbytes(state["params"])


def cell_bytes(plan) -> dict[str, int]:
    """What the backward pass of each cell keeps while it is computed anew."""
    batch_size, size = plan.config.batch_size, plan.config.data.image_size
    images = jax.ShapeDtypeStruct((batch_size, size, size, plan.config.data.channels), jnp.float32)
    found = {}

    def forward(x, key):
        model = plan.task.make_model(nnx.Rngs(params=key))
        out = model(x, train=False)
        previous, current = None, out["stem"]
        for name in model.order:
            cell, inputs = model.cells[name], (current, previous)
            found[name] = module_bytes(cell, inputs, key)
            if cell.remat:
                found[name] += max(
                    operation_bytes(cell, key, *inputs, out[name], number, side, index)
                    for number, pair in enumerate(cell.table.operations, start=2)
                    for side, (_, index) in zip(("left", "right"), pair, strict=True)
                )
            previous, current = current, out[name]

    jax.eval_shape(forward, images, jax.random.key(0))
    return found


def operation_bytes(cell, key, current, previous, output, number, side, index) -> int:
    """What the backward pass of one operation keeps: input `index` is a state of the cell."""
    filters = output.shape[-1] // len(cell.table.outputs)
    shape = (current if index < 2 else output).shape[:-1]
    channels = current.shape[-1] if index == 1 and previous is None else filters
    state = jax.ShapeDtypeStruct((*shape, channels), current.dtype)
    return module_bytes(cell.operations[f"h{number}_{side}"], (state,), key)


def module_bytes(module, inputs, key) -> int:
    """What a call of a cell or operation keeps for its backward pass, but for its parameters."""
    graphdef, params, stats = nnx.split(module, nnx.Param, nnx.BatchStat)

    def run(params, inputs):
        module = nnx.merge(graphdef, params, stats, copy=True)
        return module(*inputs, True, Dropping(0.9, None, key, None))[0]

    kept = jax.eval_shape(lambda *arguments: jax.vjp(run, *arguments)[1], params, inputs)
    return nbytes(kept) - nbytes(params)


def compiled_bytes(plan) -> tuple[int, float]:
    """XLA's plan of a whole step on one device, and the seconds it took to compile."""
    mesh = sharding.make_mesh()
    state = plan.abstract_state(mesh)
    batch = plan.task.batch_shapes(plan.config.batch_size)
    key = jax.eval_shape(lambda: jax.random.key(0))
    lowered = plan.train_step(mesh).lower(state, batch, key)
    begun = time.monotonic()
    memory = lowered.compile().memory_analysis()
    peak = memory.argument_size_in_bytes + memory.output_size_in_bytes
    return peak + memory.temp_size_in_bytes - memory.alias_size_in_bytes, time.monotonic() - begun


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="imagenet_amoebanet_b", help="a file in configs/")
    parser.add_argument("--batch_size", type=int, default=64, help="of one device")
    parser.add_argument("--compile", type=int, nargs="*", default=[], metavar="BATCH_SIZE")
    args = parser.parse_args()

    for remat in REMAT:
        plan = make(args.config, args.batch_size, remat)
        state = jax.eval_shape(plan.create, jax.random.key(0))
        fixed = nbytes(state) + nbytes(state["params"])  # and a gradient
        kept = kept_bytes(plan)
        print(
            f"remat {remat!r}: state and gradient {fixed / 1e9:.2f} GB, kept for the backward pass "
            f"{kept / 1e9:.2f} GB for {args.batch_size} images of {plan.config.dtype}",
            flush=True,
        )
        if remat != "none":
            cells = cell_bytes(plan)
            largest = max(cells, key=cells.__getitem__)
            print(f"  and {cells[largest] / 1e9:.2f} GB while {largest} is computed anew")
        for batch_size in args.compile:
            peak, seconds = compiled_bytes(make(args.config, batch_size, remat))
            print(
                f"  compiled for {jax.default_backend()}, {batch_size} images: peak "
                f"{peak / 1e9:.2f} GB, {seconds:.0f} s to compile",
                flush=True,
            )


if __name__ == "__main__":
    main()
