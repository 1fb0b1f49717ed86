"""Hardware that need not be there: its topologies by name, and what is publicly said of its chips.

A compiler for a TPU or a GPU runs on any machine. What it plans and estimates is what it would for
the real one; nothing can run.
"""

import dataclasses
import importlib.util
import math
import os
import re

import jax
from jax.experimental import topologies

from training.config import ConfigError

INSTALL = "pip install -e '.[train,{extra}]' -c constraints.txt"
_GPUS_OF_A_HOST = 8


@dataclasses.dataclass(frozen=True)
class Chip:
    """A TPU's chip, or a GPU.

    Attributes:
      memory: bytes of HBM that a program may take.
      bandwidth: bytes a second to and from HBM.
      flops: bfloat16 operations a second at most.
      link: bytes a second that one link sends; a TPU has one to each neighbour, a GPU one to all.
      hop: seconds that the smallest message takes over a link.
    """

    memory: int
    bandwidth: float
    flops: float
    link: float
    hop: float


@dataclasses.dataclass(frozen=True)
class Tpu(Chip):
    """A TPU's chip.

    Attributes:
      clock: Hz, of the cycles that its compiler estimates.
      smallest: the topology of one host.
      largest: chips in a topology at most.
      ring: an axis of a multiple of so many chips is a ring; others are lines.
    """

    clock: float
    smallest: str
    largest: int
    ring: int


@dataclasses.dataclass(frozen=True)
class Gpu(Chip):
    """A GPU.

    Attributes:
      network: bytes a second that each sends to other hosts.
      target: what XLA asks of it, in text.
    """

    network: float
    target: str


# Memory: what libtpu 0.0.42.1 says is available of it. Bandwidth and flops: Cloud TPU's pages on
# v5e, v5p and v6e. Clock: flops over those of all MXUs in a cycle (4, 8, 16 of 2 x 128 x 128).
# Links, rings and the microsecond of a hop: "How To Scale Your Model", parts 2 and 3
# (jax-ml.github.io/scaling-book).
TPUS = {
    "v5e": Tpu(int(15.75 * 2**30), 819e9, 197e12, 50e9, 1e-6, 1.5e9, "2x2", 256, 16),
    "v5p": Tpu(int(95.74 * 2**30), 2765e9, 459e12, 100e9, 1e-6, 1.75e9, "2x2x1", 6144, 4),
    "v6e": Tpu(int(31.25 * 2**30), 1638e9, 918e12, 100e9, 1e-6, 1.75e9, "2x2", 256, 16),
}

# Of the SXM form: openxla/xla, xla/backends/gpu/target_config/specs. Without versions the compiler
# takes what it was built with.
_TARGET = """
device_description_str: "{name}"
gpu_device_info {{
  name: "{name}"
  cuda_compute_capability {{ major: {major} feature_extension: {extension} }}
  threads_per_block_limit: 1024
  threads_per_warp: 32
  threads_per_core_limit: 2048
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: {shared_of_block}
  shared_memory_per_core: {shared_of_core}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  core_count: {cores}
  fpus_per_core: {fpus}
  clock_rate_ghz: {clock}
  l2_cache_size: {l2}
  memory_bandwidth: {bandwidth}
  device_memory_size: {memory}
}}
"""


def _gpu(flops, link, network, **fields) -> Gpu:
    memory, bandwidth = fields["memory"], fields["bandwidth"]
    # The least that XLA's cost model gives an all-reduce over eight H100.
    hop = 6e-6
    return Gpu(memory, bandwidth, flops, link, hop, network, _TARGET.format(**fields))


_HOPPER = {
    "major": 9,
    "extension": "ACCELERATED_FEATURES",
    "shared_of_block": 232448,
    "shared_of_core": 233472,
    "cores": 132,
    "fpus": 128,
    "clock": 1.98,
    "l2": 52428800,
}
_AMPERE = {
    "major": 8,
    "extension": "NONE",
    "shared_of_block": 166912,
    "shared_of_core": 167936,
    "cores": 108,
    "fpus": 64,
    "clock": 1.41,
    "l2": 41943040,
}
# Flops (dense) and NVLink (each way half of what is stated): NVIDIA's data sheets. Network: one
# adapter a GPU of a DGX, of 400 Gbit/s, and 200 of the A100's.
GPUS = {
    "h100": _gpu(
        989e12,
        450e9,
        50e9,
        name="NVIDIA H100 80GB HBM3",
        bandwidth=3352320000000,
        memory=84942979072,
        **_HOPPER,
    ),
    "h200": _gpu(
        989e12,
        450e9,
        50e9,
        name="NVIDIA H200 141GB HBM3e",
        bandwidth=4800000000000,
        memory=151397597184,
        **_HOPPER,
    ),
    "a100": _gpu(
        312e12,
        300e9,
        25e9,
        name="NVIDIA A100-SXM4-80GB",
        bandwidth=2039040000000,
        memory=85100068864,
        **_AMPERE,
    ),
}
HELP = (
    f"a TPU such as v5e:16x16 ({', '.join(TPUS)}) or GPUs such as h100:8 ({', '.join(GPUS)}), "
    "one chip without what follows the colon"
)


@dataclasses.dataclass(frozen=True)
class Topology:
    """Chips and what joins them.

    Attributes:
      name: as it was asked for.
      chip: of its kind.
      devices: to compile for.
      send: bytes a second that each chip sends at most while all do.
      hops: links between the two chips that are farthest apart.
    """

    name: str
    chip: Tpu | Gpu
    devices: list
    send: float
    hops: float

    @property
    def hosts(self) -> int:
        """How many processes it takes."""
        return len({device.process_index for device in self.devices})

    def transfer(self, bytes_of_all: float, passes: int = 1) -> float:
        """The least seconds in which all chips can have `bytes_of_all` that lie in parts on each.

        Args:
          bytes_of_all: of the whole.
          passes: 2 for an all-reduce, which scatters and then gathers.
        """
        chips = len(self.devices)
        if chips == 1:
            return 0.0
        received = bytes_of_all * (chips - 1) / chips
        return passes * max(received / self.send, self.hops * self.chip.hop)


def topology(name: str) -> Topology:
    """The hardware of a name; to be called before jax is asked for its devices.

    Of this process jax will then see the CPU alone.

    Args:
      name: a TPU and its shape such as "v5e:16x16", or a GPU and a number such as "h100:8"; one
        chip without.

    Raises:
      ConfigError: there is none of that name, or no compiler for it here.
    """
    kind, _, shape = name.lower().partition(":")
    if kind in TPUS:
        return _tpu(name, TPUS[kind], kind, shape)
    if kind in GPUS:
        return _gpus(name, GPUS[kind], shape)
    raise ConfigError(f"there is no topology {name!r} here: it is {HELP}")


def _tpu(name: str, chip: Tpu, kind: str, shape: str) -> Topology:
    axes = [int(axis) for axis in re.findall(r"\d+", shape or chip.smallest)]
    example = f"{kind}:{chip.smallest}"
    if re.fullmatch(r"\d+(x\d+)+", shape or chip.smallest) is None or (
        len(axes) != len(chip.smallest.split("x"))
    ):
        raise ConfigError(f"{name!r} is no shape of a {kind}: it is such as {example}")
    if axes[0] % 2 or axes[1] % 2 or not 0 < math.prod(axes) <= chip.largest:
        raise ConfigError(
            f"there is no {name}: its first two sides are even, as those of a host ({example}), "
            f"and it has at most {chip.largest} chips"
        )
    _require("libtpu", extra="tpu")
    jax.config.update("jax_platforms", "cpu")
    # There is no TPU to ask who it is, which libtpu would complain of; and more than one process
    # may compile at a time.
    for name_of, value in (
        ("TPU_SKIP_MDS_QUERY", "1"),
        ("TPU_ACCELERATOR_TYPE", "v5litepod-4"),
        ("TPU_WORKER_HOSTNAMES", "localhost"),
        ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"),
    ):
        os.environ.setdefault(name_of, value)
    whole = f"{kind}:{'x'.join(map(str, axes))}"
    try:
        devices = topologies.get_topology_desc(whole, platform="tpu").devices
    except jax.errors.JaxRuntimeError as error:
        raise ConfigError(f"libtpu has no {whole}: {str(error).splitlines()[0]}") from error
    if not shape:
        return Topology(name, chip, devices[:1], math.inf, 0)
    rings = [axis % chip.ring == 0 for axis in axes]
    ways = [0 if axis == 1 else 1 + ring for axis, ring in zip(axes, rings, strict=True)]
    far = [axis / 2 if ring else axis - 1 for axis, ring in zip(axes, rings, strict=True)]
    return Topology(name, chip, devices, chip.link * sum(ways), sum(far))


def _gpus(name: str, chip: Gpu, shape: str) -> Topology:
    count = int(shape or 1) if re.fullmatch(r"\d*", shape) else 0
    hosts, left = max(count // _GPUS_OF_A_HOST, 1), count % _GPUS_OF_A_HOST
    if count < 1 or (count > _GPUS_OF_A_HOST and left):
        raise ConfigError(
            f"there is no {name}: a number of GPUs up to {_GPUS_OF_A_HOST}, which are a host, or a "
            "multiple of them"
        )
    _require("jax_cuda12_plugin", "jax_cuda13_plugin", extra="cuda")
    jax.config.update("jax_platforms", "cpu")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    _lower_without_a_gpu()
    # Slices, their hosts, the hosts' GPUs.
    layout = f"1x{hosts}x{count // hosts}"
    devices = topologies.get_topology_desc(
        "", "cuda", target_config=chip.target, topology=layout
    ).devices
    # Between hosts each GPU sends its part of what its host has summed.
    between = 1 / (chip.network * _GPUS_OF_A_HOST) if hosts > 1 else 0.0
    return Topology(name, chip, devices, 1 / (1 / chip.link + between), 1 + (hosts > 1))


def _lower_without_a_gpu():
    """Lowering asks for a live GPU, only to learn that "gpu" is "cuda"; jax issue 23971."""
    from jax._src import xla_bridge

    canonicalize = xla_bridge.canonicalize_platform

    def without_gpu(platform):
        try:
            return canonicalize(platform)
        except RuntimeError:
            return "cuda"

    xla_bridge.canonicalize_platform = without_gpu


def _require(*modules: str, extra: str):
    """Raises ConfigError where none of some modules is installed."""
    if not any(importlib.util.find_spec(module) for module in modules):
        raise ConfigError(
            f"there is no {modules[0]} here to compile with: {INSTALL.format(extra=extra)}"
        )
