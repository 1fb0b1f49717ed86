"""One mesh axis, "data": the batch is cut over all devices of all hosts, the state is on each.

With `config.shard_state` the large arrays of the state are cut too: a device holds and updates its
part of parameters, momenta and averages (FSDP, ZeRO).
"""

import functools
import math

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from training.config import ConfigError

# Elements of an array, from which on it is worth a gather.
_LEAST = 2**14


def make_mesh(devices) -> Mesh:
    """A mesh over `devices`.

    They are ordered by process, so that a process holds contiguous rows of a batch;
    `jax.make_mesh` may order them by the topology instead. The axis is Auto in words: Explicit is
    the default of jax, and evaluation's gathers do not type-check in it.
    """
    devices = sorted(devices, key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))


def platform(mesh: Mesh) -> str:
    """Of its devices: "cpu", "gpu" or "tpu"."""
    return mesh.devices.flat[0].platform


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def by_batch(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec("data"))


def cut_axis(shape: tuple[int, ...], devices: int) -> int | None:
    """The axis along which an array of the state is cut over devices; None: it is whole on each.

    The longest that the devices divide, of equal ones the last; None for a small array.
    """
    axes = [axis for axis, length in enumerate(shape) if length % devices == 0]
    if devices == 1 or math.prod(shape) < _LEAST or not axes:
        return None
    return max(axes, key=lambda axis: (shape[axis], axis))


def cut(mesh: Mesh, shape: tuple[int, ...]) -> NamedSharding | None:
    """The sharding of an array of the state that `cut_axis` cuts, None where it is whole."""
    axis = cut_axis(shape, mesh.size)
    return None if axis is None else NamedSharding(mesh, PartitionSpec(*[None] * axis, "data"))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def gather(x: jax.Array, cut: NamedSharding) -> jax.Array:
    """An array that is cut, whole on each device; its gradient is cut as it is."""
    return jax.lax.with_sharding_constraint(x, NamedSharding(cut.mesh, PartitionSpec()))


gather.defvjp(
    lambda x, cut: (gather(x, cut), None),
    lambda cut, _, gradient: (jax.lax.with_sharding_constraint(gradient, cut),),
)


def with_sharding(shapes, sharding: NamedSharding):
    """A pytree of shapes, each on a mesh."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)


def by_device(mesh: Mesh):
    """Makes a function of arrays by example one that each device runs on its own examples.

    For what XLA would else gather the whole batch for, such as sorting.
    """
    spec = PartitionSpec("data")
    return functools.partial(
        jax.shard_map, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False
    )


def local_rows(mesh: Mesh, batch_size: int) -> slice:
    """The rows of the global batch that this process holds."""
    slices = by_batch(mesh).addressable_devices_indices_map((batch_size,)).values()
    bounds = [rows[0].indices(batch_size)[:2] for rows in slices if rows is not None]
    return slice(min(start for start, _ in bounds), max(stop for _, stop in bounds))


def check_batch(mesh: Mesh, batch_size: int, accumulate: int):
    """Raises ConfigError where the devices do not divide a (micro-)batch."""
    devices = mesh.devices.size
    if accumulate < 1:
        raise ConfigError(f"accumulate must be at least 1, got {accumulate}")
    if batch_size % (devices * accumulate):
        cut = f"{devices} devices" + (f" x {accumulate} micro-batches" if accumulate > 1 else "")
        lower = batch_size // (devices * accumulate) * devices * accumulate
        near = " or ".join(str(n) for n in (lower, lower + devices * accumulate) if n)
        raise ConfigError(f"batch_size {batch_size} cannot be divided over {cut}: use {near}")


def put_batch(mesh: Mesh, batch: dict) -> dict:
    """Moves this process's rows of a batch to its devices, as parts of global arrays."""
    sharding = by_batch(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()
    }
