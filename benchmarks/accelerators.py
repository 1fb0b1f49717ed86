"""What dropblock, and a training step with it, cost on a TPU and an H100, by their compilers.

    python -m benchmarks.accelerators                   # the op, on one chip of a TPU v5e
    python -m benchmarks.accelerators --chip h100       # the op, on an H100
    python -m benchmarks.accelerators --step imagenet_resnet50 --batch_size 64   # a training step

No accelerator is needed, and nothing runs: **these are compilers' figures, not times.** They are
good for comparing forms of one thing. Where a compiler is missing, a sentence says what brings it
(training/hardware.py).

The op on a TPU: each kernel takes the longer of its instructions (VLIW bundles as scheduled, times
the turns of their loops) over the clock, and of the bytes that it moves to and from HBM over the
bandwidth; the kernels are added up. A small program may keep its arrays on the chip (VMEM) and copy
them beside other work, which a network can't: such a copy counts as HBM traffic of the kernel that
uses or makes the array, and no program is faster than its arguments and results take to move. The
compiler gives up on a large kernel by the clock: on a busy machine the literal algorithm's came out
2.5 times as long. On an H100: XLA's own cost model of each kernel, without launches and waits.

A step: the TPU compiler's estimate of its cycles, each loop's body as often as it turns. Loops that
turn as often as data says ("open") count once, here as for the op: multiply them yourself.
"""

import argparse
import contextlib
import functools
import multiprocessing
import os
import pathlib
import re
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from benchmarks import machine_code
from benchmarks.dropblock_op import BLOCK, bernoulli_dropout, literal, with_backward
from benchmarks.train_step import VARIANTS, config_of
from dropblock import dropblock, dropout
from tasks import make_task
from training import hlo
from training.compiled_step import compile_train_step, described
from training.config import ConfigError
from training.hardware import GPUS, TPUS, Tpu, topology
from training.plan import make_plan

# A map, and after a colon the block where it is not of BLOCK.
MAPS = (
    "32x14x14x1024",
    "64x14x14x1024",
    "32x7x7x2048",
    "64x28x28x512",
    "8x40x40x1024",
    "16x65x65x256:4",
    "16x65x65x256:16",
)
GPU_MAPS = ("128x14x14x1024", "128x7x7x2048")


# --- The op.


def functions(block):
    """Name -> function of `(rng, x, keep_prob)`; names as in benchmarks/dropblock_op.py."""
    ours = functools.partial(dropblock, block_size=block)
    return {
        "dropblock": ours,
        "dropblock, gamma_rule exact": functools.partial(ours, gamma_rule="exact"),
        "dropout": dropout,
        "Algorithm 1, literally": functools.partial(literal, block_size=block),
        "jax.random.bernoulli dropout": bernoulli_dropout,
    }


def op_costs(name, dtype, backward, device, cost):
    """Name -> what it costs, for a map such as 16x65x65x256:4."""
    shape, _, block = name.partition(":")
    x = jax.ShapeDtypeStruct(tuple(map(int, shape.split("x"))), dtype)
    arrays = (x, x) if backward else (x,)
    wrap = with_backward if backward else lambda function: function
    scalars = jax.eval_shape(lambda: (jax.random.key(0), jnp.float32(0)))
    calls = {"copy": (lambda c, x: x * c, (jax.ShapeDtypeStruct((), dtype),))} | {
        label: (lambda rng, keep_prob, x, f=function: f(rng, x, keep_prob), scalars)
        for label, function in functions(int(block or BLOCK)).items()
    }
    on = SingleDeviceSharding(device)
    costs = {}
    for label, (function, args) in calls.items():
        print(f"{name}: {label}", file=sys.stderr, flush=True)
        jitted = jax.jit(wrap(function), in_shardings=on, out_shardings=on)
        costs[label] = cost(jitted.lower(*args, *arrays))
    return costs


def gpu_cost(lowered):
    """Microseconds of a lowered function on a GPU, and what is in it."""
    compiled = lowered.compile()
    module = hlo.parse(compiled.as_text())
    us, open_loops = hlo.total(module, hlo.exec_time_us)
    kernels, _ = hlo.total(module, lambda _, op: op.kind not in hlo.FREE)
    return _described(module, compiled, us, open_loops, kernels)


def dump_machine_code(folder: str):
    """Has libtpu put out there what it makes; to be called before it is loaded."""
    files = "final_bundles|deduplication-map"
    flags = f"to={folder}", "llo_text=true", f"llo_pass_label_regex={files}"
    args = [os.environ.get("LIBTPU_INIT_ARGS", ""), *(f"--xla_jf_dump_{f}" for f in flags)]
    os.environ["LIBTPU_INIT_ARGS"] = " ".join(args)


def tpu_cost(lowered, chip: Tpu, dump: pathlib.Path):
    """Microseconds of a lowered function on a chip, and what is in it."""
    for path in dump.iterdir():
        path.unlink()
    compiled = lowered.compile()
    kernels = {}
    for path in dump.glob("*-final_bundles.txt"):
        # <time>-<op>-<pass>-final_bundles.txt, and schedule-analysis_final_bundles.txt beside it.
        if named := re.fullmatch(r"\d+-(.*)-\d+-final_bundles.txt", path.name):
            kernels[named[1]] = machine_code.bundles(path.read_text())
    for path in dump.glob("*-deduplication-map.txt"):
        same = machine_code.alike(path.read_text())
        kernels |= {name: kernels[first] for name, first in same.items() if first in kernels}
    module = hlo.parse(compiled.as_text())

    @functools.cache
    def traffic(computation):
        return machine_code.hbm_bytes(module.computations[computation])

    def seconds(computation, op):
        if op.name not in kernels:  # a name, a copy, a scalar: or this reading is wrong
            assert op.kind != "fusion", f"the compiler has put out no machine code of {op.name}"
            return 0.0
        moved = traffic(computation).get(op.name, 0)
        return max(kernels[op.name][0] / chip.clock, moved / chip.bandwidth)

    total, open_loops = hlo.total(module, seconds)
    # What runs between the kernels: scalars, some hundred bundles. Its loops are the module's, and
    # count once here.
    total += kernels["TLP"][0] / chip.clock
    memory = compiled.memory_analysis()
    least = memory.argument_size_in_bytes + memory.output_size_in_bytes
    open_loops += sum(loops for name, (_, loops) in kernels.items() if name != "TLP")
    count, _ = hlo.total(module, lambda _, op: op.name in kernels)
    us = max(total, least / chip.bandwidth) * 1e6
    return _described(module, compiled, us, open_loops, count)


def _described(module, compiled, us, open_loops, kernels):
    return {
        "us": us,
        "kernels": round(kernels),
        "loops": module.count("while"),
        "open loops": open_loops,
        "conditionals": module.count("conditional"),
        "scatters": module.count("scatter"),
        "sorts": module.count("sort"),
        "temporary MB": compiled.memory_analysis().temp_size_in_bytes / 1e6,
    }


def show_op(costs):
    """Prints the costs over the copy's, and what is in each program; `{map: {name: cost}}`."""
    names = list(next(iter(costs.values())))
    rows = [["copy, us", *(f"{of['copy']['us']:.1f}" for of in costs.values())]]
    for name in names[1:]:
        ratios = (of[name]["us"] / of["copy"]["us"] for of in costs.values())
        rows.append([name, *(f"{ratio:.2f}" for ratio in ratios)])
    print(table(["over the copy", *costs], rows))
    parts = [part for part in costs[next(iter(costs))]["copy"] if part != "us"]
    rows = [
        [shape, name, *(f"{cost[part]:.3g}" for part in parts)]
        for shape, of in costs.items()
        for name, cost in of.items()
    ]
    print("\n" + table(["map", "", *parts], rows))


def table(header, rows):
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# --- The step.


def step_cost(args, variant):
    """What compiling a config's training step takes, and what the compiler says of it."""
    there = _topology_of_step(args)
    config = config_of(args.step, variant)
    config.batch_size = args.batch_size * len(there.devices)
    config.dtype = args.dtype
    plan = make_plan(config, make_task, there.devices, need_data=False)
    began = time.monotonic()
    lowered = plan.lower_train_step()
    traced = time.monotonic() - began
    step = compile_train_step(plan, lowered, there)
    return {
        "s to trace and lower": traced,
        "s to compile": step.seconds_to_compile,
        "estimated Mcycles": step.cycles / 1e6,
        "temporary MB": step.temporary / 1e6,
        "loops": step.loops,
        "open loops": step.open_loops,
        "all-reduces": sum(one.times for one in step.collectives if one.kind == "all-reduce"),
    }


def step_costs(cost, rounds):
    """Variant -> the medians of what `cost(variant)` gives in some rounds.

    The variants run side by side, each in a process of its own on a half of the cores, and change
    places each round: on a machine that is slow now and then they are held against each other only
    where they share the time, and of two compiles in one process the second takes longer.
    """
    cores = sorted(os.sched_getaffinity(0))
    halves = [cores[::2], cores[1::2] or cores]
    spawn = multiprocessing.get_context("spawn")
    costs = []
    for turn in range(rounds):
        print(f"round {turn + 1} of {rounds}", file=sys.stderr, flush=True)
        with contextlib.ExitStack() as stack:
            waiting = []
            for variant, half in zip(VARIANTS, halves, strict=True):
                pool = ProcessPoolExecutor(1, spawn, os.sched_setaffinity, (0, half))
                waiting.append(stack.enter_context(pool).submit(cost, variant))
            costs.append([one.result() for one in waiting])
        halves.reverse()
    return {
        variant: {part: statistics.median(one[part] for one in of) for part in of[0]}
        for variant, of in zip(VARIANTS, zip(*costs, strict=True), strict=True)
    }


def show_step(costs):
    """Prints both variants and the ratio; `{variant: cost}`."""
    without, with_it = (costs[variant] for variant in VARIANTS)
    rows = [[variant, *(f"{value:.4g}" for value in costs[variant].values())] for variant in costs]
    ratios = (f"{with_it[part] / of:.3f}" if of else "-" for part, of in without.items())
    rows.append(["ratio", *ratios])
    print(table(["", *without], rows))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chip", default="v5e", choices=[*TPUS, *GPUS])
    parser.add_argument("--maps", nargs="+", help="such as 32x14x14x1024, or 16x65x65x256:4")
    parser.add_argument("--backward", action="store_true", help="the op forward and backward")
    parser.add_argument("--step", metavar="CONFIG", help="a file in configs/: a step in its place")
    parser.add_argument("--batch_size", type=int, default=64, help="of a step, on each chip")
    parser.add_argument("--topology", help="of a step, such as v5e:4x4; default: a host of --chip")
    parser.add_argument("--rounds", type=int, default=1, help="of a step, for its seconds")
    parser.add_argument("--dtype", default="bfloat16")
    args = parser.parse_args()
    if args.step and args.chip in GPUS:
        parser.error("a step is compiled for TPUs only")
    try:
        _step(args) if args.step else _op(args)
    except ConfigError as error:
        raise SystemExit(f"error: {error}") from error


def _topology_of_step(args):
    return topology(args.topology or f"{args.chip}:{TPUS[args.chip].smallest}")


def _step(args):
    there = described(_topology_of_step(args))
    print(
        f"{args.step}, {args.batch_size} images on each, {args.dtype}, rounds: {args.rounds}; "
        f"{there}\n",
        flush=True,
    )
    show_step(step_costs(functools.partial(step_cost, args), args.rounds))


def _op(args):
    with contextlib.ExitStack() as stack:
        if args.chip in GPUS:
            os.environ["XLA_FLAGS"] = (
                f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_collect_cost_model_stats=true"
            )
            maps, cost = args.maps or GPU_MAPS, gpu_cost
        else:
            dump = stack.enter_context(tempfile.TemporaryDirectory())
            dump_machine_code(dump)
            maps = args.maps or MAPS
            cost = functools.partial(tpu_cost, chip=TPUS[args.chip], dump=pathlib.Path(dump))
        there = topology(args.chip)
        way = "forward + backward" if args.backward else "forward"
        print(
            f"{args.dtype}, block {BLOCK} or after the colon, {way}; {described(there)}\n",
            flush=True,
        )
        device = there.devices[0]
        show_op({name: op_costs(name, args.dtype, args.backward, device, cost) for name in maps})


if __name__ == "__main__":
    main()
