"""Pooling, padded as TensorFlow's or as PyTorch's; quick on a CPU too.

`platform` is where the network will run, see `layers.Layers`. Values and gradients are the same on
all of them.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax


def max_pool(
    x: jax.Array,
    window: tuple[int, int],
    strides: tuple[int, int],
    platform: str | None,
    padding: Any = "SAME",
) -> jax.Array:
    """The largest value under the window; `[batch, height, width, channels]` in and out.

    Of equal values, as where some have been dropped, the first in reading order gets the gradient.
    `padding` is "SAME", or (before, after) of each axis; it is never the largest.
    """
    if platform == "any":
        return _on_any(x, lambda x, platform: max_pool(x, window, strides, platform, padding))
    if platform == "cpu":
        return _by_axes(x, window, strides, _first_of_largest, -jnp.inf, padding)
    return nnx.max_pool(x, window, strides, padding)


def avg_pool(
    x: jax.Array, window: tuple[int, int], strides: tuple[int, int], platform: str | None
) -> jax.Array:
    """The mean of what is under the window; padding does not count."""
    if platform == "any":
        return _on_any(x, lambda x, platform: avg_pool(x, window, strides, platform))
    if platform == "cpu":
        count = functools.partial(_by_axes, window=window, strides=strides, combine=operator.add)
        return count(x, fill=0) / count(np.ones((1, *x.shape[1:3], 1), x.dtype), fill=0)
    pooled = nnx.avg_pool(x, window, strides, "SAME", count_include_pad=False)
    return pooled.astype(x.dtype)  # it makes float32 of bfloat16


def _on_any(x, pool: Callable):
    return lax.platform_dependent(x, cpu=lambda x: pool(x, "cpu"), default=lambda x: pool(x, None))


def _first_of_largest(first, second):
    """The larger of two, NaN where either is; of equal ones the first, which gets the gradient."""
    return jnp.where((first >= second) | jnp.isnan(first), first, second)


def _by_axes(x, window, strides, combine: Callable, fill, padding: Any = "SAME"):
    """Combines shifted maps, first along rows, then rows: the first of all is first in each.

    On a CPU XLA takes five times as long for a window and, backward, a scatter.
    """
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], window, strides, padding)
    for axis in (2, 1):
        size, stride = window[axis - 1], strides[axis - 1]
        pads = [(0, 0)] * x.ndim
        pads[axis] = padding[axis - 1]
        padded = jnp.pad(x, pads, constant_values=fill)
        out = (padded.shape[axis] - size) // stride + 1
        x = functools.reduce(
            combine,
            [
                lax.slice_in_dim(padded, start, start + (out - 1) * stride + 1, stride, axis)
                for start in range(size)
            ],
        )
    return x
