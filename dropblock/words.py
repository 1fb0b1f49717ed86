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
# A block grows by so many of its lengths at once.
_AT_ONCE = 7


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
    def words_of_row(self) -> int:
        """Words that a row lies in, alone or with others."""
        return -(-self.row // BITS)

    @property
    def strides(self) -> tuple[int, ...]:
        """How many bits one step along each axis is."""
        pitch = self.row if self.row <= BITS else self.words_of_row * BITS
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
    batch, count, channels = words.shape
    row, rows = cells.row, cells.rows
    # Which of the `count` words along axis 2 holds a cell, and which bit of it.
    if row > BITS:  # several words are a row
        count = cells.words_of_row
        words = words.reshape(batch, rows, count, 1, channels)
        word, bit = np.divmod(np.arange(row)[None], BITS)
        few, repeat, laid_out = count <= 8, BITS, (batch, rows, count * BITS, channels)
    else:  # several rows are a word
        words = words.reshape(batch, 1, count, 1, channels)
        word, bit = np.divmod(np.arange(rows)[:, None], cells.bits // row)
        bit = bit * row + np.arange(row)[None]
        few, repeat = count <= 2, cells.bits // row
        laid_out = (batch, count * repeat, 1, channels)
    if few:  # choosing is cheaper than laying them out
        of_cells = words[:, :, 0]
        for n in range(1, count):
            of_cells = jnp.where(word[None, :, :, None] < n, of_cells, words[:, :, n])
    else:
        of_cells = jnp.repeat(words, repeat, axis=2).reshape(laid_out)[:, :rows, :row]
    one = np.uint32(1) << bit.astype(np.uint32)[None, :, :, None]
    return (of_cells & one != 0).reshape(batch, *cells.shape, channels)


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
        # Nothing is moved but bits where rows lie in one word each.
        along_words = axis == len(box) - 1 and cells.row <= BITS
        while length < side:
            if along_words:
                farthest = min(length, side - length)
                words |= words << jnp.uint32(farthest)
            else:  # a few lengths at once, since each time is a pass over the words
                farthest = min(_AT_ONCE * length, side - length)
                shifts = [*range(length, farthest, length), farthest]
                box[axis] += farthest
                words = _or_moved(words, [n * stride for n in shifts], cells, cells.words(box))
            length += farthest
        words = stored(words)
    return words


def stored(words: jax.Array) -> jax.Array:
    """`words` `[batch, words, channels]`, which a CPU writes to memory here.

    Its compiler would else compute them again for each element that they are read for. It drops
    barriers before it fuses, but never fuses a reduction over windows; here each has one word.
    """

    def store(words):
        window, first = (2, 1, 1, 1), [(1, 0), (0, 0), (0, 0), (0, 0)]
        stored = jax.lax.reduce_window(
            words[None], np.uint32(0), jax.lax.bitwise_or, window, (1, 1, 1, 1), first
        )
        return stored[0]

    return jax.lax.platform_dependent(words, cpu=store, default=lambda words: words)


def _or_moved(words, shifts, cells, count):
    """`count` words: those given, OR those given moved up by each of `shifts` bits."""
    # What comes from the word so many before is one read of it.
    parts = {0: words}
    for shift in shifts:
        whole, bits = divmod(shift, cells.bits)
        low = words & jnp.uint32(2 ** (cells.bits - bits) - 1)
        parts[whole] = parts.get(whole, 0) | low << jnp.uint32(bits)
        if bits:
            parts[whole + 1] = parts.get(whole + 1, 0) | words >> jnp.uint32(cells.bits - bits)

    def moved(words, whole):
        padding = (whole, count - words.shape[1] - whole, 0)
        return jax.lax.pad(words, jnp.uint32(0), [(0, 0, 0), padding, (0, 0, 0)])

    return functools.reduce(jnp.bitwise_or, (moved(part, whole) for whole, part in parts.items()))


def kept_fraction(dropped, cells: int) -> jax.Array:
    """The fraction of `cells` that are left where `dropped` of them, uint32, are not; float32."""
    # XLA divides by a constant as a product with its inverse, and 41 * (1 / 41) is not 1.
    fraction = (jnp.uint32(cells) - dropped).astype(jnp.float32) / jnp.float32(cells)
    return jnp.where(dropped == 0, 1.0, fraction)
