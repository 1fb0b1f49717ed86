"""The training step of a plan, compiled: what the compiler plans and estimates of it."""

import collections
import dataclasses
import functools
import importlib.metadata
import math
import re
import time

import jax

from training import hlo
from training.config import ConfigError
from training.hardware import Gpu, Topology, Tpu
from training.memory import peak_bytes
from training.plan import Plan

GIB = 2**30
# Of a GPU's memory, unless it is told otherwise.
_JAX_TAKES = 0.75


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """What a compiler says of a training step on each device.

    Attributes:
      seconds_to_compile: on this machine.
      memory: bytes that it plans, all in all.
      temporary: bytes of them that are neither arguments nor results nor the program.
      collectives: what the devices send each other.
      loops: `while`s.
      open_loops: those that turn as often as data says; an estimate counts them once.
      cycles: estimated by a TPU's compiler; 0 of another.
      seconds: what the device itself takes at least; None where nothing is known of it.
      sending: seconds that the collectives take at least.
    """

    seconds_to_compile: float
    memory: int
    temporary: int
    collectives: list[hlo.Collective]
    loops: int
    open_loops: int
    cycles: float
    seconds: float | None
    sending: float


def compile_train_step(
    plan: Plan, lowered: jax.stages.Lowered, topology: Topology | None = None
) -> CompiledStep:
    """Compiles the training step of a plan.

    Args:
      plan: for the devices of the topology.
      lowered: its `lower_train_step()`.
      topology: what it is compiled for, if that is known.

    Raises:
      ConfigError: it does not fit the memory; by how much, and which fields would help.
    """
    began = time.monotonic()
    try:
        compiled = lowered.compile(_options(topology))
    except jax.errors.JaxRuntimeError as error:
        needed, has = _refused(str(error))
        if needed is None:
            raise
        raise ConfigError(does_not_fit(plan, needed, has)) from error
    done = time.monotonic()

    text, planned = compiled.as_text(), compiled.memory_analysis()
    assert text is not None and planned is not None
    memory = peak_bytes(compiled) + planned.generated_code_size_in_bytes
    if topology is not None and memory > topology.chip.memory:
        raise ConfigError(does_not_fit(plan, memory, topology.chip.memory))
    module = hlo.parse(text)
    cycles, open_loops = hlo.total(module, hlo.estimated_cycles)  # 0 but for a TPU
    seconds = None
    if topology is not None:
        seconds = _least_seconds(module, cycles, topology.chip)
    sent = hlo.collectives(module)
    return CompiledStep(
        done - began,
        memory,
        planned.temp_size_in_bytes,
        sent,
        module.count("while"),
        open_loops,
        cycles,
        seconds,
        sum(_sending(topology, one) * one.times for one in sent) if topology else 0.0,
    )


def _options(topology: Topology | None) -> dict[str, str | bool] | None:
    if topology is None or isinstance(topology.chip, Tpu):
        return None
    # Where there is no GPU nothing is tried out, and XLA's first choice for a product of matrices
    # by Triton may be none that it can build: cuBLAS computes them.
    return {"xla_gpu_enable_triton_gemm": False}


def _least_seconds(module: hlo.Module, cycles: float, chip: Tpu | Gpu) -> float:
    if isinstance(chip, Tpu):
        return cycles / chip.clock
    return hlo.total(module, functools.partial(_roofline, module, chip))[0]


def _roofline(module: hlo.Module, chip: Gpu, computation: str, op: hlo.Op) -> float:
    """The least seconds of a GPU's kernel: by its bytes, and a convolution by its operations.

    XLA's own cost model knows no convolution of cuDNN, and puts some gathers at a thousand times
    what their bytes take.
    """
    if op.kind in hlo.FREE or re.sub("-(start|done)$", "", op.kind) in hlo.COLLECTIVES:
        return 0.0
    ops = module.computations[computation]
    by_bytes = hlo.traffic(ops, op) / chip.bandwidth
    return max(by_bytes, hlo.convolution_flops(ops, op) / chip.flops)


def _sending(topology: Topology, one: hlo.Collective) -> float:
    return topology.transfer(one.nbytes, passes=2 if one.kind == "all-reduce" else 1)


# --- Memory that is not there.


def _refused(text: str) -> tuple[float | None, float]:
    """Bytes needed and had, from a compiler's refusal; None if it is of another kind."""
    if "RESOURCE_EXHAUSTED" in text:
        for pattern in (r"Used ([\d.]+)G of ([\d.]+)G", r"\(([\d.]+)G\) exceeds.*\(([\d.]+)G\)"):
            if found := re.search(pattern, text):
                return float(found[1]) * GIB, float(found[2]) * GIB
    return None, 0.0


def does_not_fit(plan: Plan, needed: float, has: float) -> str:
    """By how much a step is too large for a device's memory, and what would help, in a sentence."""
    state = state_bytes(plan)
    return (
        f"the training step does not fit: it takes at least {needed / GIB:.2f} GiB of a device's "
        f"{has / GIB:.2f}, {(needed - has) / GIB:.2f} too much ({state / GIB:.2f} is the state); "
        f"what helps: {', '.join(_remedies(plan, large_state=state > has / 2))}"
    )


def state_bytes(plan: Plan) -> int:
    """Of the training state on each device."""
    return sum(
        x.dtype.itemsize * math.prod(x.sharding.shard_shape(x.shape))
        for x in jax.tree.leaves(plan.abstract_state)
    )


def _remedies(plan: Plan, *, large_state: bool) -> list[str]:
    """Fields that make a step smaller, the one that helps most first."""
    config = plan.config
    sharded = (
        ["--config.shard_state"]
        if config.get("shard_state") is False and plan.mesh.size > 1
        else []
    )
    found = sharded if large_state else []
    if config.dtype == "float32":
        found.append("--config.dtype=bfloat16")
    if config.model.get("remat") == "none":
        found.append("--config.model.remat=cells")
    group = config.model.get("bn_group_size", 0)
    for accumulate in range(config.accumulate + 1, config.batch_size // plan.mesh.size + 1):
        examples, left = divmod(config.batch_size, accumulate)
        # A micro-batch is cut over the devices, and into groups of BatchNorm.
        if not left and not examples % plan.mesh.size and _in_groups(examples, group):
            found.append(f"--config.accumulate={accumulate}")
            break
    found += ["a smaller --config.batch_size", "more devices"] + ([] if large_state else sharded)
    return found


def _in_groups(examples: int, group: int) -> bool:
    return group == 0 or group >= examples or examples % group == 0


# --- What is said of it.


def report(step: CompiledStep, plan: Plan, topology: Topology | None = None) -> str:
    """What is to be known of a compiled step, in lines."""
    lines = [
        f"seconds to compile the training step: {step.seconds_to_compile:.1f}",
        f"memory of each device, as XLA plans it for {plan.platform}: {step.memory / GIB:.2f} GiB"
        + (f" of {topology.chip.memory / GIB:.2f}" if topology else "")
        + f", {state_bytes(plan) / GIB:.2f} of it the state, {step.temporary / GIB:.2f} temporary",
        "collectives of a step:" + ("" if step.collectives else " none"),
    ]
    if (
        topology is not None
        and isinstance(topology.chip, Gpu)
        and (step.memory > _JAX_TAKES * topology.chip.memory)
    ):
        lines.insert(2, "  which is more than JAX takes: set XLA_PYTHON_CLIENT_MEM_FRACTION=0.95")
    kinds = collections.defaultdict(list)
    for one in step.collectives:
        kinds[one.kind].append(one)
    for kind, all_of_it in sorted(kinds.items()):
        count = sum(one.times for one in all_of_it)
        sent = sum(one.times * one.nbytes for one in all_of_it)
        lines.append(f"  {kind}: {count}, {sent / 1e6:.2f} MB")
    ends = f", {step.open_loops} of them as often as data says" if step.open_loops else ""
    lines.append(f"loops: {step.loops}{ends}")
    if topology is None or step.seconds is None:
        return "\n".join(lines)

    if isinstance(topology.chip, Tpu):
        clock = topology.chip.clock
        lines.append(
            f"estimated cycles: {step.cycles:,.0f}, {step.seconds * 1e3:.2f} ms at "
            f"{clock / 1e9:g} GHz"
        )
    else:
        lines.append(
            f"least time by the bytes and convolutions of the kernels: {step.seconds * 1e3:.2f} ms"
        )
    if topology.devices[1:]:
        lines.append(
            f"least time of the collectives, at {topology.send / 1e9:g} GB/s from each chip: "
            f"{step.sending * 1e3:.2f} ms"
        )
    batch, chips = plan.config.batch_size, len(topology.devices)
    best, worst = bounds(step, batch)
    lines.append(
        f"images/s at most: {best:,.0f} ({best / chips:,.0f} on each chip); "
        f"{worst:,.0f} if nothing runs beside the collectives ({worst / best:.1%})"
        if chips > 1
        else f"images/s at most: {best:,.0f}"
    )
    return "\n".join(lines)


def bounds(step: CompiledStep, batch_size: int) -> tuple[float, float]:
    """Images a second with the collectives hidden behind other work, and with none of them so."""
    assert step.seconds is not None
    return (
        batch_size / max(step.seconds, step.sending),
        batch_size / (step.seconds + step.sending),
    )


def described(topology: Topology) -> str:
    """A topology and the versions of its compiler, in a line."""
    packages = ["jax", "libtpu"] if isinstance(topology.chip, Tpu) else ["jax"]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    kind, chips, hosts = topology.devices[0].device_kind, len(topology.devices), topology.hosts
    return (
        f"{topology.name}: {chips} {kind} on {hosts} host{'s' * (hosts > 1)} ({versions}); "
        "a compiler's figures, not times"
    )
