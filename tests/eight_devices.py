"""Calls with the batch over eight devices."""

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def mesh():
    return jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))


def call(function, *arguments):
    """`function` under jit of arguments whose first axis is the batch."""
    arguments = jax.device_put(arguments, NamedSharding(mesh(), PartitionSpec("data")))
    return jax.jit(function)(*arguments)
