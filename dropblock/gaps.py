"""The CPU's draw: where the next 1 is. Few numbers, scattered to where they belong.

- A rare 1 is found by drawing the gap to the next one, a geometric number;
- where a word would have more than one 1, the probability is split: P = 1 - (1 - a / 256) (1 - b).
  Bits of probability a / 256 are made 32 at a time from 8 random words; b is rare.
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from dropblock.threefry import key_words, threefry
from dropblock.words import BITS

# Positions are added up in float32, which holds integers exactly to 2^24.
_LONGEST_STREAM = 2**22


def draw(key, probability, bits, typical: float, most: float) -> jax.Array:
    """Words whose bits are 1 with `probability`, at most 1/2.

    For `draws.bernoulli`, whose other arguments these are; `key` is the words of a JAX key.
    """
    key = key_words(key, hashed=True)
    rarely = 1 / max(int(word).bit_count() for word in bits.inside)
    planes = jnp.where(probability > rarely, jnp.floor(probability * 256.0), 0.0)
    rare = (probability - planes / 256.0) / (1.0 - planes / 256.0)

    # A 0 that varies over the mesh as the bits do: shard_map wants a loop's carry typed so.
    zero = jnp.where(planes > 0, key[0] ^ key[0], jnp.uint32(0))
    words = _sparse(key, bits, rare, typical if typical <= rarely else 1 / 256, zero)
    if most > rarely:
        words |= _dense(key, bits, planes.astype(jnp.uint32), zero)
    return words


def _dense(key, bits, planes, zero):
    """Words whose bits are 1 with probability `planes` / 256, by its binary digits.

    Read from the lowest digit up, OR with a random bit adds 1/2 to half the probability so far,
    AND adds nothing.
    """
    # Drawn one after the other, without the bits that words leave unused.
    lengths = [int(word).bit_length() for word in bits.inside]
    *starts, length = itertools.accumulate(lengths, initial=0)
    shape = (bits.batch, -(-length // BITS), bits.channels)
    example, word, channel = (jax.lax.broadcasted_iota(jnp.uint32, shape, n) for n in range(3))
    counter = (word * shape[2] + channel) * 4

    def two_digits(step, words):
        step = jnp.uint32(step)
        # Counters from 2^31 on; those of the gaps lie below.
        pair = threefry(key, example, (counter + step) | jnp.uint32(2**31))
        for digit, random in enumerate(pair):
            one = planes >> (2 * step + digit) & 1
            words = jnp.where(one == 1, words | random, words & random)
        return words

    steps = jnp.where(planes > 0, 4, 0)
    drawn = jax.lax.fori_loop(0, steps, two_digits, jnp.full(shape, zero))
    start, shift = np.divmod(np.array(starts, np.uint32)[None, :, None], np.uint32(BITS))
    start = start.ravel()
    following = np.minimum(start + 1, shape[1] - 1)
    words = drawn[:, start] >> shift | drawn[:, following] << 1 << BITS - 1 - shift
    return words & bits.inside[None, :, None]


def _sparse(key, bits, probability, typical, zero):
    """Words whose bits are 1 with a small probability, by the gaps between them.

    The cells of an example's box are one stream, channels innermost; that of an example with very
    many cells is several streams of whole places.
    """
    batch, cells, box, channels = bits
    places, words = math.prod(box), cells.words(box) * channels
    streams = -(-places * channels // _LONGEST_STREAM)
    part = -(-places // streams)
    length = part * channels
    # Two levels of sums, 32 gaps to a group: cheap in XLA, which has no fast prefix sum on CPU.
    groups = math.ceil(_most_ones(length * typical) / 32)
    shape = (batch * streams, groups, 32)
    row, group, gap = (jax.lax.broadcasted_iota(jnp.uint32, shape, axis) for axis in range(3))
    flat = (batch, streams * groups * 32)
    index = group * 32 + gap
    inclusive = jnp.triu(jnp.ones((32, 32), jnp.float32))
    # 1 / rate of the exponential whose integer part is the geometric gap.
    spacing = -1.0 / jnp.log1p(-probability)

    def chunk(step, carry):
        last, words = carry
        counter = index + jnp.uint32(step) * jnp.uint32(groups * 32)
        random, _ = threefry(key, row, counter)
        gap = jnp.minimum(jnp.floor(_exponential(random) * spacing), length) + 1.0
        sums = jnp.einsum("rgi,ij->rgj", gap, inclusive, precision="highest")
        totals = sums[..., -1]
        before = jnp.cumsum(totals, 1) - totals
        # Sums past 2^24 are rounded, but stay past the end, at which they are cut.
        position = jnp.minimum(sums + (before + last[:, None])[..., None], length)
        last = position[:, -1, -1]
        position = position.reshape(batch, streams, groups * 32).astype(jnp.int32)
        place = position // channels + jnp.arange(streams)[None, :, None] * part
        bit = cells.bit(jnp.unravel_index(place, box or (1,)))
        word = bit // cells.bits * channels + position % channels
        # Positions are distinct, so adding is setting; those past the end are not in the map.
        word = jnp.where((position < length) & (place < places), word, words.shape[1])
        one = jnp.uint32(1) << (bit % cells.bits).astype(jnp.uint32)
        add = jax.vmap(lambda words, word, one: words.at[word].add(one, mode="drop"))
        return last, add(words, word.reshape(flat), one.reshape(flat))

    # Known without looking at what was drawn, so that devices need not agree on an end.
    needed = jnp.ceil(_most_ones(length * probability) / (groups * 32))
    steps = jnp.where(probability > 0, needed, 0).astype(jnp.int32)
    first = jnp.full(batch * streams, zero.astype(jnp.float32) - 1.0)
    drawn = jax.lax.fori_loop(0, steps, chunk, (first, jnp.full((batch, words), zero)))[1]
    return drawn.reshape(batch, cells.words(box), channels)


def _most_ones(mean):
    """A number of 1s that a stream with `mean` of them exceeds with probability below 1e-15.

    Bernstein's inequality: P(X >= mean + t) <= exp(-t^2 / 2 (mean + t / 3)).
    """
    return mean + 11.6 + (133.0 + 69.1 * mean) ** 0.5


def _exponential(random):
    """Exponential numbers of mean 1 from random words, with all 32 bits at both ends."""
    small = jnp.minimum(random, ~random)
    uniform = (small.astype(jnp.float32) + 0.5) * 2.0**-32
    return -jnp.where(random == small, jnp.log1p(-uniform), jnp.log(uniform))
