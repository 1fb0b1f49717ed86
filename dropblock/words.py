"""Masks as bits: the cells of a map in reading order, in words of 32 bits, each channel by itself.

`uint32[batch, words, channels]`. A word holds whole rows of the map, as many as fit; a row of more
than 32 cells is several words. So channels stay where they are in memory, next to one another,
and a step along any axis of the map is a shift by a number of bits that is known beforehand.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

BITS = 32
# Up to so many words a row, choosing among them is cheaper than laying them out.
_FEW = 8


class Cells(NamedTuple):
    """Where the cells of maps of one shape lie in words."""

    shape: tuple[int, ...]  # the spatial axes; none is a map of one cell

    @property
    def row(self) -> int:
        """Cells in a row."""
        return self.shape[-1] if self.shape else 1

    @property
    def rows(self) -> int:
        return math.prod(self.shape[:-1])

    @property
    def bits(self) -> int:
        """Bits of a word that are used."""
        return BITS // self.row * self.row if self.row <= BITS else BITS

    @property
    def strides(self) -> tuple[int, ...]:
        """How many bits one step along each axis is."""
        pitch = self.row if self.row <= BITS else -(-self.row // BITS) * BITS
        inner = [math.prod(self.shape[axis:-1]) for axis in range(1, len(self.shape))]
        return (*(pitch * rows for rows in inner), 1)

    def words(self, box: Sequence[int]) -> int:
        """Words up to the last cell of a box that has the map's first cell."""
        return self.bit([size - 1 for size in box]) // self.bits + 1

    def bit(self, index: Sequence):
        """The number of a cell's bit, counted over the used bits of all words."""
        return sum(i * stride for i, stride in zip(index, self.strides, strict=False))

    def box(self, box: Sequence[int]) -> np.ndarray:
        """The words whose bits are 1 in a box that has the map's first cell, uint32 `[words]`."""
        bits = np.ravel(self.bit(np.ogrid[tuple(slice(size) for size in box)]))
        inside = np.zeros(self.words(box), np.uint32)
        np.bitwise_or.at(inside, bits // self.bits, np.uint32(1) << np.uint32(bits % self.bits))
        return inside


@functools.partial(jax.jit, static_argnames="cells")
def unpack(words: jax.Array, cells: Cells) -> jax.Array:
    """The bits as bool `[batch, *cells.shape, channels]`."""
    batch, _, channels = words.shape
    one = np.uint32(1) << np.arange(cells.bits, dtype=np.uint32)
    if cells.row <= BITS:
        bits = words[:, :, None, None] & one.reshape(1, 1, -1, cells.row, 1)
        rows = words.shape[1] * cells.bits // cells.row
        bits = bits.reshape(batch, rows, cells.row, channels)[:, : cells.rows]
    else:
        count = words.shape[1] // cells.rows
        words = words.reshape(batch, cells.rows, count, 1, channels)
        if count <= _FEW:
            column = np.arange(cells.row)[None, None, :, None]
            word = functools.reduce(
                lambda before, n: jnp.where(column < n * BITS, before, words[:, :, n]),
                range(1, count),
                words[:, :, 0],
            )
            bits = word & one[column % BITS]
        else:
            bits = (words & one[None, None, None, :, None]).reshape(
                batch, cells.rows, count * BITS, channels
            )[:, :, : cells.row]
    return (bits != 0).reshape(batch, *cells.shape, channels)


def count(words: jax.Array, axes) -> jax.Array:
    """The number of bits that are 1 over `axes`: exact, uint32, `axes` kept as 1."""
    return jnp.sum(jax.lax.population_count(words), axes, dtype=jnp.uint32, keepdims=True)


@functools.partial(jax.jit, static_argnames=("cells", "block_shape"))
def grow(words: jax.Array, cells: Cells, block_shape: tuple[int, ...]) -> jax.Array:
    """Grows each bit to a block that starts at it.

    Args:
      words: `[batch, words, channels]`, a bit where a block starts; the words up to the last
        place where one fits.
      block_shape: the block's side on each spatial axis.

    Returns:
      uint32 `[batch, words, channels]` of the whole map, a bit inside a block.
    """
    box = [size - side + 1 for size, side in zip(cells.shape, block_shape, strict=True)]
    # The last axis first, while there are fewest words. A block that fits never leaves its row, so
    # no bit is shifted into the next one.
    for axis in reversed(range(len(box))):
        side, stride, length = block_shape[axis], cells.strides[axis], 1
        while length < side:
            step = min(length, side - length)
            length, box[axis] = length + step, box[axis] + step
            words = _or_shifted(words, step * stride, cells, cells.words(box))
    return words


def _or_shifted(words, shift, cells, count):
    """`count` words: those given, OR those given moved up by `shift` bits."""
    whole, bits = divmod(shift, cells.bits)
    if shift < cells.row <= BITS:  # along rows that lie in one word each
        return words | words << jnp.uint32(bits)

    def moved(words, whole):
        padding = (whole, count - words.shape[1] - whole, 0)
        return jax.lax.pad(words, jnp.uint32(0), [(0, 0, 0), padding, (0, 0, 0)])

    if not bits:
        return moved(words, 0) | moved(words, whole)
    low = words & jnp.uint32(2 ** (cells.bits - bits) - 1)
    high = words >> jnp.uint32(cells.bits - bits)
    return moved(words, 0) | moved(low << jnp.uint32(bits), whole) | moved(high, whole + 1)


def kept_fraction(dropped, cells: int) -> jax.Array:
    """The fraction of `cells` that are left where `dropped` of them, uint32, are not; float32."""
    # XLA divides by a constant as a product with its inverse, and 41 * (1 / 41) is not 1.
    fraction = (jnp.uint32(cells) - dropped).astype(jnp.float32) / jnp.float32(cells)
    return jnp.where(dropped == 0, 1.0, fraction)
