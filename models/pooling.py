"""Pooling with SAME padding, as TensorFlow's; quick on a CPU too."""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax


def max_pool(x: jax.Array, window: tuple[int, int], strides: tuple[int, int]) -> jax.Array:
    """The largest value under the window; `[batch, height, width, channels]` in and out."""
    if jax.default_backend() == "cpu":
        return _by_axes(x, window, strides, jnp.maximum, -jnp.inf)
    return nnx.max_pool(x, window, strides, "SAME")


def avg_pool(x: jax.Array, window: tuple[int, int], strides: tuple[int, int]) -> jax.Array:
    """The mean of what is under the window; padding does not count."""
    if jax.default_backend() == "cpu":
        count = functools.partial(_by_axes, window=window, strides=strides, combine=operator.add)
        return count(x, fill=0) / count(np.ones((1, *x.shape[1:3], 1), x.dtype), fill=0)
    pooled = nnx.avg_pool(x, window, strides, "SAME", count_include_pad=False)
    return pooled.astype(x.dtype)  # it makes float32 of bfloat16


def _by_axes(x, window, strides, combine, fill):
    """Combines shifted maps, first rows, then columns.

    On a CPU XLA takes five times as long for a window and, backward, a scatter. Where values are
    equal, as where they have been dropped, the gradient of a maximum is shared, not the first's.
    """
    for axis, (size, stride) in enumerate(zip(window, strides, strict=True), start=1):
        length = x.shape[axis]
        ((low, high),) = lax.padtype_to_pads((length,), (size,), (stride,), "SAME")
        padding = [(0, 0)] * x.ndim
        padding[axis] = (low, high)
        padded = jnp.pad(x, padding, constant_values=fill)
        out = -(-length // stride)
        x = functools.reduce(
            combine,
            [
                lax.slice_in_dim(padded, start, start + (out - 1) * stride + 1, stride, axis)
                for start in range(size)
            ],
        )
    return x
