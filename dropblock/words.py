"""Masks as bits: bit c % 32 of word c // 32 is channel c, `uint32[..., ceil(channels / 32)]`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

BITS = 32


def width(channels: int) -> int:
    """Words for each position of a map."""
    return -(-channels // BITS)


def clear_padding(words, channels: int) -> jax.Array:
    """`words` with the bits of the last word that belong to no channel set to 0."""
    valid = np.full(width(channels), 2**BITS - 1, np.uint32)
    valid[-1] >>= np.uint32(-channels % BITS)
    return words & valid.reshape((1,) * (words.ndim - 1) + (-1,))


@functools.partial(jax.jit, static_argnames="channels")
def unpack(words, channels: int) -> jax.Array:
    """The bits as bool `[..., channels]`."""
    *lead, wide = words.shape
    lanes = jax.lax.broadcasted_iota(jnp.uint32, (*lead, wide, BITS), words.ndim)
    bits = (words[..., None] >> lanes & jnp.uint32(1)) != jnp.uint32(0)
    return bits.reshape(*lead, wide * BITS)[..., :channels]


def count(words, axes) -> jax.Array:
    """The number of bits that are 1 over `axes`: exact, uint32, `axes` kept as 1."""
    return jnp.sum(jax.lax.population_count(words), axes, dtype=jnp.uint32, keepdims=True)


@functools.partial(jax.jit, static_argnames="block_shape")
def grow(words, block_shape) -> jax.Array:
    """Grows each bit to a block that starts at it.

    Args:
      words: uint32 `[batch, *(size - block + 1), words]`, a bit where a block starts.
      block_shape: the block's side on each spatial axis.

    Returns:
      uint32 `[batch, *size, words]`, a bit inside a block.
    """
    for axis, side in enumerate(block_shape, start=1):
        # A window, not shifted ORs: XLA never fuses a window into what reads it, where it would
        # be computed again for each of the 32 elements of a word.
        window, strides, padding = [1] * words.ndim, [1] * words.ndim, [(0, 0)] * words.ndim
        window[axis], padding[axis] = side, (side - 1, side - 1)
        words = jax.lax.reduce_window(
            words, jnp.uint32(0), jax.lax.bitwise_or, window, strides, padding
        )
    return words


def kept_fraction(dropped, cells: int) -> jax.Array:
    """The fraction of `cells` that are left where `dropped` of them, uint32, are not; float32."""
    # XLA divides by a constant as a product with its inverse, and 41 * (1 / 41) is not 1.
    fraction = (jnp.uint32(cells) - dropped).astype(jnp.float32) / jnp.float32(cells)
    return jnp.where(dropped == 0, 1.0, fraction)
