"""Random bits with any probability, 32 to a word (see words.py), one stream for each example."""

import functools
import math

import jax
import jax.numpy as jnp

from dropblock import words

# Up to this probability only the bits that are 1 are drawn; above it whole words are, too.
_RARE = 1 / 32
# Positions are added up in float32, which holds integers exactly to 2^24.
_LONGEST_STREAM = 2**22


# Compiled by itself where it is called outside jit: op by op its loops take 0.3 s.
@functools.partial(jax.jit, static_argnames=("shape", "typical"))
def bernoulli(rng, shape, probability, typical: float) -> jax.Array:
    """Draws bits that are 1 with `probability`, each by itself.

    A number for each bit would cost many times the pass over x that the bits are for. So:

    - a rare 1 is found by drawing the gap to the next one, a geometric number;
    - a probability above 1/32 is split: P = 1 - (1 - a / 256) (1 - b). Bits of probability
      a / 256 are made 32 at a time from 8 random words; b is rare;
    - one above 1/2 is drawn as what is 0.

    An example's bits depend on the key and on the example's position alone.

    Args:
      rng: a JAX key of any implementation.
      shape: `[batch, *sites, channels]`.
      probability: number or scalar array, exact at 0 and 1, resolved to 2^-32.
      typical: the probability to be quick at; the draw does not depend on it.

    Returns:
      uint32 `[batch, *sites, ceil(channels / 32)]`.
    """
    batch, *lead, channels = shape
    sites, width = math.prod(lead), words.width(channels)
    # An example with very many positions is several streams of whole sites.
    streams = -(-sites * channels // _LONGEST_STREAM)
    part = -(-sites // streams)

    probability = jnp.asarray(probability, jnp.float32)
    flip = probability > 0.5
    probability = jnp.where(flip, 1.0 - probability, probability)
    planes = jnp.where(probability > _RARE, jnp.floor(probability * 256.0), 0.0)
    rare = (probability - planes / 256.0) / (1.0 - planes / 256.0)

    key = _key_words(rng)
    # A 0 that varies over the mesh as the bits do: shard_map wants a loop's carry typed so.
    zero = jnp.where(flip, key[0] ^ key[0], jnp.uint32(0))
    rows = batch * streams
    bits = _dense(key, (rows, part * width), planes.astype(jnp.uint32), zero)
    typical = typical if typical <= _RARE else 1 / 256
    bits |= _sparse(key, (rows, part, channels), rare, typical, zero)
    bits ^= jnp.where(flip, ~jnp.uint32(0), jnp.uint32(0))
    bits = bits.reshape(batch, streams * part * width)[:, : sites * width]
    return words.clear_padding(bits.reshape(batch, *lead, width), channels)


def _dense(key, shape, planes, zero):
    """Words `shape` whose bits are 1 with probability `planes` / 256, by its binary digits.

    Read from the lowest digit up, OR with a random bit adds 1/2 to half the probability so far,
    AND adds nothing.
    """
    row = jax.lax.broadcasted_iota(jnp.uint32, shape, 0)
    column = jax.lax.broadcasted_iota(jnp.uint32, shape, 1)

    def two_digits(step, bits):
        step = jnp.uint32(step)
        # Counters from 2^31 on; those of the gaps lie below.
        pair = _threefry(key, row, (column * 4 + step) | jnp.uint32(2**31))
        for digit, random in enumerate(pair):
            one = planes >> (2 * step + digit) & 1
            bits = jnp.where(one == 1, bits | random, bits & random)
        return bits

    steps = jnp.where(planes > 0, 4, 0)
    return jax.lax.fori_loop(0, steps, two_digits, jnp.full(shape, zero))


def _sparse(key, shape, probability, typical, zero):
    """Bits that are 1 with a small probability, by the gaps between them.

    Args:
      shape: `(rows, sites, channels)`, a row being one stream of positions.

    Returns:
      uint32 `[rows, sites * words]`.
    """
    rows, sites, channels = shape
    length, width = sites * channels, words.width(channels)
    # Two levels of sums, 32 gaps to a group: cheap in XLA, which has no fast prefix sum on CPU.
    groups = math.ceil(_most_ones(length * typical) / 32)
    draws = (rows, groups, 32)
    row, group, place = (jax.lax.broadcasted_iota(jnp.uint32, draws, axis) for axis in range(3))
    index = group * 32 + place
    inclusive = jnp.triu(jnp.ones((32, 32), jnp.float32))
    # 1 / rate of the exponential whose integer part is the geometric gap.
    spacing = -1.0 / jnp.log1p(-probability)

    def chunk(step, carry):
        last, bits = carry
        counter = index + jnp.uint32(step) * jnp.uint32(groups * 32)
        random, _ = _threefry(key, row, counter)
        gap = jnp.minimum(jnp.floor(_exponential(random) * spacing), length) + 1.0
        sums = jnp.einsum("rgi,ij->rgj", gap, inclusive, precision="highest")
        totals = sums[..., -1]
        before = jnp.cumsum(totals, 1) - totals
        # Sums past 2^24 are rounded, but stay past the end, at which they are cut.
        position = jnp.minimum(sums + (before + last[:, None])[..., None], length)
        last = position[:, -1, -1]
        position = position.reshape(rows, groups * 32).astype(jnp.int32)
        site, channel = position // channels, position % channels
        word = site * width + channel // words.BITS
        bit = jnp.uint32(1) << (channel % words.BITS).astype(jnp.uint32)
        # Positions are distinct, so adding is setting; those past the end are not in the map.
        add = jax.vmap(lambda bits, word, bit: bits.at[word].add(bit, mode="drop"))
        return last, add(bits, word, bit)

    # Known without looking at what was drawn, so that devices need not agree on an end.
    needed = jnp.ceil(_most_ones(length * probability) / (groups * 32))
    steps = jnp.where(probability > 0, needed, 0).astype(jnp.int32)
    start = jnp.full(rows, zero.astype(jnp.float32) - 1.0), jnp.full((rows, sites * width), zero)
    return jax.lax.fori_loop(0, steps, chunk, start)[1]


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


def _key_words(rng):
    """Two words of key for `_threefry`, from a JAX key of any implementation."""
    typed = jnp.issubdtype(rng.dtype, jax.dtypes.prng_key)
    data = (jax.random.key_data(rng) if typed else rng).astype(jnp.uint32)
    # The first and last two words: all of them for Threefry (2) and RBG (4). The constant, "drop",
    # parts the stream from what jax.random draws with the same key.
    return _threefry((data[0] ^ jnp.uint32(0x64726F70), data[1]), data[-2], data[-1])


def _threefry(key, high, low):
    """Threefry-2x32 with 20 rounds (Salmon et al., 2011) of the counters `high`, `low`.

    Written out, since `jax.random.bits` on CPU runs the rounds as a loop, at twice the cost, and
    needs a key for each example.
    """
    keys = (*key, key[0] ^ key[1] ^ jnp.uint32(0x1BD11BDA))
    a, b = high + keys[0], low + keys[1]
    rotations = ((13, 15, 26, 6), (17, 29, 16, 24))
    for group in range(5):
        for rotation in rotations[group % 2]:
            a = a + b
            b = a ^ (b << jnp.uint32(rotation) | b >> jnp.uint32(32 - rotation))
        a = a + keys[(group + 1) % 3]
        b = b + keys[(group + 2) % 3] + jnp.uint32(group + 1)
    return a, b
