"""What dropblock costs, beside a copy of the array and beside others.

    python -m benchmarks.dropblock_op                    # all tables
    python -m benchmarks.dropblock_op --dtype bfloat16 --maps 32x14x14x1024

Every number is a ratio: the time of a function over that of `x * c` of the same shape, compiled
and run by the same framework, in the same rounds. "forward + backward" gives `(y, dx)`, and is
held against `(x * c, dy * c)`. Each of several processes takes the median over rounds in which
all functions run in random order; printed is the median over the processes, with the lowest and
highest. torchvision and timm are measured where they are installed, on a GPU where PyTorch has it.
"""

import argparse
import functools
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import side_by_side
from dropblock import draws, dropblock, dropout

MAPS = (
    "32x14x14x1024",
    "32x14x14x256",
    "32x7x7x2048",
    "32x28x28x512",
    "8x40x40x1024",
    "32x56x56x256",
)
BLOCK, KEEP_PROB = 7, 0.9
# On a CPU others take seconds on larger arrays.
OTHERS_UP_TO = 2**23
# Of one function in a round, on an accelerator.
CALLS = 20


def literal(rng, x, keep_prob, block_size=BLOCK):
    """Algorithm 1 as it is written: a number for each position, a window of block x block."""
    _, height, width, _ = x.shape
    block = (min(block_size, height), min(block_size, width))
    legal = [size - side + 1 for size, side in zip((height, width), block, strict=True)]
    gamma = (1 - keep_prob) * height * width / math.prod(block) / math.prod(legal)
    before = [(side - 1) // 2 for side in block]
    inside = [
        (jnp.arange(size) >= side // 2) & (jnp.arange(size) < side // 2 + count)
        for size, side, count in zip((height, width), block, legal, strict=True)
    ]
    valid = inside[0][None, :, None, None] & inside[1][None, None, :, None]
    seeds = (jax.random.uniform(rng, x.shape) < gamma) & valid
    padding = [(0, 0), *((b, side - 1 - b) for b, side in zip(before, block, strict=True)), (0, 0)]
    dropped = jax.lax.reduce_window(
        seeds.astype(x.dtype), np.zeros((), x.dtype), jax.lax.max, (1, *block, 1), (1,) * 4, padding
    )
    mask = 1 - dropped
    return x * mask * (mask.size / mask.sum(dtype=jnp.float32)).astype(x.dtype)


def bernoulli_dropout(rng, x, keep_prob):
    """Dropout as Flax has it."""
    mask = jax.random.bernoulli(rng, keep_prob, x.shape)
    return jnp.where(mask, x / keep_prob.astype(x.dtype), jnp.zeros_like(x))


def ours():
    """Name -> (function of (rng, x, keep_prob), keep_prob)."""
    return {
        "dropblock": (functools.partial(dropblock, block_size=BLOCK), KEEP_PROB),
        "dropblock, shared_mask": (
            functools.partial(dropblock, block_size=BLOCK, shared_mask=True),
            KEEP_PROB,
        ),
        "dropblock, block_size 1": (functools.partial(dropblock, block_size=1), KEEP_PROB),
        "dropout": (dropout, KEEP_PROB),
        "dropout, keep_prob 0.5": (dropout, 0.5),
        "dropout, keep_prob 0.05": (dropout, 0.05),
    }


def others():
    return {
        "jax.random.bernoulli dropout": (bernoulli_dropout, KEEP_PROB),
        "Algorithm 1, literally": (literal, KEEP_PROB),
    }


def with_backward(function):
    def both(*args):
        *rest, x, dy = args
        y, pull = jax.vjp(lambda x: function(*rest, x), x)
        return y, pull(dy)[0]

    return both


def jax_cases(shape, dtype, backward):
    """Name -> a function to time, and seconds to compile."""
    x = jax.random.normal(jax.random.key(0), shape).astype(dtype)
    arrays = (x, x[::-1]) if backward else (x,)
    wrap = with_backward if backward else lambda function: function
    named = ours() | (others() if _others_can(shape) else {})
    calls = {"copy": (lambda c, x: x * c, (jnp.asarray(KEEP_PROB, dtype),))} | {
        name: (
            lambda rng, keep_prob, x, function=function: function(rng, x, keep_prob),
            (jax.random.key(1), jnp.float32(keep_prob)),
        )
        for name, (function, keep_prob) in named.items()
    }
    cases, compiling = {}, {}
    for name, (function, scalars) in calls.items():
        args = (*scalars, *arrays)
        start = time.perf_counter()
        compiled = jax.jit(wrap(function)).lower(*args).compile()
        compiling[name] = time.perf_counter() - start
        cases[name] = functools.partial(compiled, *args)
    return cases, compiling


def _others_can(shape):
    return jax.default_backend() != "cpu" or math.prod(shape) <= OTHERS_UP_TO


def torch_cases(shape, dtype, backward):
    """`(cases, wait)` for PyTorch, in its own layout, where it is installed; else no cases."""
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        return {}, None
    device = {"cpu": "cpu", "gpu": "cuda"}.get(jax.default_backend())
    there = device == "cpu" or torch.cuda.is_available()
    # Its CPU kernels are made for float32.
    if not there or (device == "cpu" and dtype != "float32") or not _others_can(shape):
        return {}, None
    torch.set_num_threads(os.cpu_count() or 1)
    functions = {"copy": lambda x: x * KEEP_PROB}
    try:
        from torchvision.ops import drop_block2d  # pyright: ignore[reportMissingImports]

        functions["torchvision drop_block2d"] = lambda x: drop_block2d(x, 1 - KEEP_PROB, BLOCK)
    except ImportError:
        pass
    try:
        from timm.layers.drop import drop_block_2d  # pyright: ignore[reportMissingImports]

        for name, couple in (("per channel", False), ("shared mask", True)):
            functions[f"timm drop_block_2d, {name}"] = functools.partial(
                drop_block_2d, drop_prob=1 - KEEP_PROB, block_size=BLOCK, couple_channels=couple
            )
    except ImportError:
        pass
    batch, height, width, channels = shape
    x = torch.randn(batch, channels, height, width, device=device, dtype=getattr(torch, dtype))
    x.requires_grad_(backward)
    dy = torch.randn_like(x)

    def run(function):
        y = function(x)
        return torch.autograd.grad(y, x, dy) if backward else y

    def wait(_):
        if device == "cuda":
            torch.cuda.synchronize()

    return {name: functools.partial(run, function) for name, function in functions.items()}, wait


def measure(maps, dtypes, repeats):
    """One process's ratios, `{table: {column: {row: ratio}}}`."""
    tables = {}
    how = {"repeats": repeats, "calls": 1 if jax.default_backend() == "cpu" else CALLS}
    for dtype in dtypes:
        for backward in (False, True):
            title = f"{dtype}, {'forward + backward' if backward else 'forward'}"
            for name in maps:
                shape = tuple(map(int, name.split("x")))
                cases, compiling = jax_cases(shape, dtype, backward)
                ratios = _over_copy(side_by_side(cases, **how))
                torched, wait = torch_cases(shape, dtype, backward)
                if torched:
                    times = side_by_side(torched, **how, wait=wait)
                    ratios |= _over_copy(times, "PyTorch copy, ms")
                tables.setdefault(title, {})[name] = ratios
                if "Algorithm 1, literally" in compiling:
                    tables.setdefault(f"seconds to compile: {title}", {})[name] = compiling
    return tables


def _over_copy(seconds, copy="copy, ms"):
    rest = {name: value / seconds["copy"] for name, value in seconds.items() if name != "copy"}
    return {copy: seconds["copy"] * 1e3, **rest}


def show(runs):
    """Prints the tables in Markdown, each cell over the processes."""
    for title in runs[0]:
        columns = list(runs[0][title])
        rows = list(dict.fromkeys(row for column in columns for row in runs[0][title][column]))
        print(f"\n{title}\n\n| | {' | '.join(columns)} |\n|---{'|---' * len(columns)}|")
        for row in rows:
            cells = []
            for column in columns:
                values = [run[title][column][row] for run in runs if row in run[title][column]]
                middle = f"{statistics.median(values or [0]):.3g}"
                cells.append(f"{middle} ({min(values):.3g} - {max(values):.3g})" if values else "-")
            print(f"| {row} | {' | '.join(cells)} |")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--maps", nargs="+", default=MAPS, help="such as 32x14x14x1024")
    parser.add_argument("--dtype", nargs="+", default=("float32", "bfloat16"))
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--form", choices=draws.FORMS, help="of the draw; default: the platform's")
    args = parser.parse_args()
    if args.form:
        draws.bernoulli = functools.partial(draws.bernoulli, form=args.form)
    if args.processes == 0:  # one of the processes below
        print(json.dumps(measure(args.maps, args.dtype, args.repeats)))
        return
    command = [sys.executable, "-m", "benchmarks.dropblock_op", "--processes", "0"]
    command += ["--repeats", str(args.repeats), "--maps", *args.maps, "--dtype", *args.dtype]
    command += ["--form", args.form] if args.form else []
    runs = []
    for number in range(args.processes):
        print(f"process {number + 1} of {args.processes}", file=sys.stderr, flush=True)
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    device = jax.devices()[0]
    print(
        f"{device.device_kind} ({device.platform}), {os.cpu_count()} CPU cores, "
        f"jax {jax.__version__}, Python {platform.python_version()}; block_size {BLOCK}, "
        f"keep_prob {KEEP_PROB}; {args.processes} processes of {args.repeats} rounds"
    )
    show(runs)


if __name__ == "__main__":
    main()
