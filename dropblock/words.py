"""Masks as bits: the cells of a map in words, each channel by itself, `[batch, words, channels]`.

Channels stay where they are in memory, next to one another. Words hold cells in one of two ways:

- packed (`Cells`), uint32: as many whole rows of the map as fit; a row of more than 32 cells is
  several words. So there are few words to draw and to grow in, and a step along any axis but the
  last is a shift by a number of bits that is known beforehand.
- as rows, uint8, uint16 or uint32: a row is one word, or several of 32 bits. So a cell is read by
  a shift by a constant. This is what is kept and applied.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dropblock import cpu

BITS = 32
# A block grows by so many of its lengths at once.
_AT_ONCE = 7
# Words of a row, up to which it is cheaper on a TPU to choose one of them than to repeat each.
_FEW = 8


class Cells(NamedTuple):
    """Where the cells of maps of one shape lie in packed words."""

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


@functools.partial(jax.jit, static_argnames="shape")
def unpack(words: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Rows of maps of this shape as bool `[batch, *shape, channels]`."""
    batch, count, channels = words.shape
    row, of_row = Cells(shape).row, Cells(shape).words_of_row
    word, bit = np.divmod(np.arange(row, dtype=np.uint32)[None, None, :, None], np.uint32(BITS))
    words = words.reshape(batch, count // of_row, of_row, channels)
    if of_row > 1:

        def lay_out(words):
            return jnp.repeat(words, BITS, axis=2)[:, :, :row]

        def choose(words):
            words, *others = jnp.split(words, of_row, axis=2)
            for n, other in enumerate(others, start=1):
                words = jnp.where(word < n, words, other)
            return words

        # A TPU is slow to lay out, others read but one word for each cell then.
        few = choose if of_row <= _FEW else lay_out
        words = jax.lax.platform_dependent(words, tpu=few, default=lay_out)
    # Not an AND with the one bit, which costs a TPU's compiler more at every reader.
    one = words.dtype.type(1)
    return (words >> bit.astype(words.dtype) & one != 0).reshape(batch, *shape, channels)


def count(words: jax.Array, axes) -> jax.Array:
    """The number of bits that are 1 over `axes`: exact, uint32, `axes` kept as 1."""
    return jnp.sum(jax.lax.population_count(words), axes, dtype=jnp.uint32, keepdims=True)


@functools.partial(jax.jit, static_argnames=("cells", "block_shape"))
def grow(words: jax.Array, cells: Cells, block_shape: tuple[int, ...]) -> jax.Array:
    """Grows each bit to a block that starts at it.

    Args:
      words: packed, a bit where a block starts; the words up to the last place where one fits.
      cells: those of the map, but for the last axis, which has only places where a block fits.
      block_shape: the block's side on each spatial axis.

    Returns:
      Rows of the map, a bit inside a block.
    """
    batch, _, channels = words.shape
    *sides, side = block_shape or (1,)
    box = [size - side + 1 for size, side in zip(cells.shape, sides, strict=False)]
    # The packed words first, since there are fewer.
    for axis in reversed(range(len(sides))):
        for moves in _moves(sides[axis]):
            box[axis] += moves[-1]
            shifts = [n * cells.strides[axis] for n in moves]
            words = _or_moved(words, shifts, cells.bits, cells.words([*box, cells.row]))
        if sides[axis] > 1:
            words = _stored(words)
    row = cells.row + side - 1
    words = _split(words, cells)
    if row <= BITS:
        words = words.astype(f"uint{max(8, 2 ** (row - 1).bit_length())}")
        for (move,) in _moves(side, at_once=1):
            words |= words << words.dtype.type(move)
    else:
        for moves in _moves(side):
            words = _or_moved(words, moves, BITS, -(-row // BITS))
    return _stored(words.reshape(batch, math.prod(words.shape[1:3]), channels))


def rows(words: jax.Array, cells: Cells) -> jax.Array:
    """Packed words of `cells` as rows."""
    return grow(words, cells, (1,) * len(cells.shape))


def _moves(side, at_once=_AT_ONCE):
    """How far 1 is to be moved to be ORed to `side`: all of a list at once, one after the other."""
    length = 1
    while length < side:
        farthest = min(at_once * length, side - length)
        yield [*range(length, farthest, length), farthest]
        length += farthest


def _split(words, cells):
    """Packed words as rows of uint32, `[batch, rows, words of a row, channels]`."""
    batch, count, channels = words.shape
    if cells.row > BITS:
        return words.reshape(batch, cells.rows, cells.words_of_row, channels)
    of_word = cells.bits // cells.row
    number = jax.lax.broadcasted_iota(jnp.uint32, (batch, count, of_word, channels), 2)
    words = words[:, :, None] >> number * cells.row & jnp.uint32(2**cells.row - 1)
    return words.reshape(batch, count * of_word, 1, channels)[:, : cells.rows]


def _stored(words):
    """`words`, which a CPU writes to memory here: else it would grow them anew for each reader."""
    return jax.lax.platform_dependent(words, cpu=cpu.store, default=lambda words: words)


def _or_moved(words, shifts, bits, count):
    """`count` words of so many bits: those given, OR those given moved up by each of `shifts`."""
    # All that comes from a word to the one so many after it, so that it is read once for that.
    parts = {0: words}
    for shift in shifts:
        whole, rest = divmod(shift, bits)
        low = words & jnp.uint32(2 ** (bits - rest) - 1)
        parts[whole] = parts.get(whole, 0) | low << jnp.uint32(rest)
        if rest:
            parts[whole + 1] = parts.get(whole + 1, 0) | words >> jnp.uint32(bits - rest)

    def moved(words, whole):
        padding = [(0, 0, 0)] * words.ndim
        padding[-2] = (whole, count - words.shape[-2] - whole, 0)
        return jax.lax.pad(words, jnp.uint32(0), padding)

    return functools.reduce(jnp.bitwise_or, (moved(part, whole) for whole, part in parts.items()))


def kept_fraction(dropped, cells: int) -> jax.Array:
    """The fraction of `cells` that are left where `dropped` of them, uint32, are not; float32."""
    # XLA divides by a constant as a product with its inverse, and 41 * (1 / 41) is not 1.
    fraction = (jnp.uint32(cells) - dropped).astype(jnp.float32) / jnp.float32(cells)
    return jnp.where(dropped == 0, 1.0, fraction)
