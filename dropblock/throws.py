"""The draw of TPUs and GPUs: 1s thrown at words. No scatter, no sort, no loop.

Bits that are 1 with probability p, each by itself, are what N ~ Poisson(-n log(1 - p)) throws at
the n cells of a word leave, each at a cell drawn uniformly, with repetition: thinning makes the
hits of the cells independent Poisson numbers of mean -log(1 - p), and P(no hit) = 1 - p. A random
word u says how many: throw k is made where u is below P(N > k), a number that is computed once.

- Where p is bounded, as DropBlock's gamma is, few throws cover it for every keep_prob;
- where it is not, P = 1 - (1 - a / 128) (1 - b): bits of probability a / 128 are made 32 at a time
  from 7 random words, and b, below 1/64, is thrown.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from dropblock.threefry import key_words, threefry
from dropblock.words import BITS

# Beyond this many throws a word, on average, digits are cheaper.
_MOST_THROWN = 6.0
_DIGITS = 7
# Two random words each; what a word's counter has room for.
_PAIRS = 8
# A map may lose a throw, since they are so many and no more, with this probability.
_LOST = 1e-10


def draw(key, probability, bits, typical: float, most: float) -> jax.Array:
    """Words whose bits are 1 with `probability`, at most 1/2.

    For `draws.bernoulli`, whose other arguments these are; `key` is the words of a JAX key.
    """
    del typical
    key, count = key_words(key, hashed=False), bits.cells.words(bits.box)
    thrown = functools.partial(_thrown, key, probability, bits, most)
    if bits.cells.row > BITS:  # several words are a row, of which the last has fewer cells
        whole, rest = divmod(bits.cells.row, BITS)
        rows = count // bits.cells.words_of_row
        words = thrown(0, rows * whole, BITS).reshape(bits.batch, rows, whole, bits.channels)
        if rest:
            last = thrown(rows * whole, rows, rest)
            words = jnp.concatenate([words, last[:, :, None]], axis=2)
        words = words.reshape(bits.batch, count, bits.channels)
    else:  # beyond the last bit of the box nothing need be drawn
        words = thrown(0, count, max(int(word).bit_length() for word in bits.inside))
    return words & bits.inside[None, :, None]


def _thrown(key, probability, bits, most, first, count, length):
    """`count` words, of which the first `length` bits are drawn, uint32 `[batch, count, channels]`.

    Args:
      probability: of a 1, at most `most`, which is at most 1/2.
      first: the number of the first word, by which its random words are its own.
    """
    # A power of two of cells; what is thrown beyond `length` does not count.
    size = (length - 1).bit_length()
    cells = 2**size
    digits = _DIGITS if _mean(cells, most) > _MOST_THROWN else 0
    if digits:
        a = jnp.floor(probability * 2.0**digits)
        probability = (probability - a / 2.0**digits) / (1.0 - a / 2.0**digits)
        most = 2.0 ** (1 - digits)
    throws = 1  # at a single cell all would be thrown at that
    if size:
        throws = _throws_needed(_mean(cells, most), bits.cells.words(bits.box))
    below = _thresholds(-cells * jnp.log1p(-probability), throws)

    shape = (bits.batch, count, bits.channels)
    # As many throws as a random word has places for, after one word for each digit and one for u.
    needed = digits + 1 + (math.ceil(throws / (BITS // size)) if size else 0)
    random = iter(_random_words(key, shape, first, needed))
    words = jnp.zeros(shape, jnp.uint32)
    for digit in range(digits):
        # From the lowest digit up, OR with a random bit adds 1/2 to half the probability so far,
        # AND adds nothing.
        word = next(random)
        words = jnp.where(a.astype(jnp.uint32) >> digit & 1 == 1, words | word, words & word)
    u, where, left = next(random), jnp.uint32(0), 0
    for k in range(throws):
        if left < size:
            where, left = next(random), BITS
        one = jnp.uint32(1) << (where & jnp.uint32(cells - 1))
        where, left = where >> jnp.uint32(size), left - size
        words |= jnp.where(u < below[k], one, jnp.uint32(0))
    return words


def _random_words(key, shape, first, needed):
    """So many random words for each of the words `shape`, or one more."""
    pairs = math.ceil(needed / 2)
    assert pairs <= _PAIRS, "more random words than the counter has room for"
    counters = np.arange(first, first + shape[1], dtype=np.uint32) * np.uint32(shape[2] * _PAIRS)
    counters = counters + np.arange(pairs, dtype=np.uint32)[:, None]
    tpu, default = (
        functools.partial(form, shape=shape, counters=counters) for form in (_at_once, _one_by_one)
    )
    return jax.lax.platform_dependent(key, tpu=tpu if pairs > 1 else default, default=default)


def _one_by_one(key, shape, counters):
    """Two random words after two, for `counters` `[pairs, words]`."""
    return [words for pair in counters for words in _pair(key, shape, pair)]


def _at_once(key, shape, counters):
    """The same, apart from the throws: one large kernel takes a TPU's compiler a third longer."""
    drawn = jax.lax.optimization_barrier(_pair(key, shape, counters.ravel()))
    pairs = zip(*(jnp.split(words, len(counters), axis=1) for words in drawn), strict=True)
    return [words for pair in pairs for words in pair]


def _pair(key, shape, counters):
    """Two random words for each of `[batch, counters, channels]`; `counters` are channel 0's."""
    batch, _, channels = shape
    shape = (batch, len(counters), channels)
    example, channel = (jax.lax.broadcasted_iota(jnp.uint32, shape, axis) for axis in (0, 2))
    return threefry(key, example, counters[None, :, None] + channel * _PAIRS)


def _mean(cells: int, most: float) -> float:
    """Throws at `cells` whose hits have a probability of `most`."""
    return -cells * math.log1p(-most)


def _throws_needed(mean: float, words: int) -> int:
    """The fewest throws that one of `words` Poisson numbers exceeds with probability _LOST."""

    def lost(throws):
        # The tail is at most its first term over 1 - the ratio of the next ones.
        term = math.exp((throws + 1) * math.log(mean) - mean - math.lgamma(throws + 2))
        return words * term / (1 - mean / (throws + 2))

    return next(n for n in itertools.count(max(1, math.ceil(mean))) if lost(n) < _LOST)


def _thresholds(mean, count):
    """P(N > k) of a Poisson number N for k below `count`, as uint32 of 2^32."""
    # From the tail's own series: 1 - P(N <= k) would have no digits left.
    terms = [math.factorial(n) for n in range(1, min(count + 16, 34))]
    series = mean ** jnp.arange(1.0, len(terms) + 1) / jnp.array(terms, jnp.float32)
    later = np.tri(len(terms), count, dtype=bool).T
    tails = jnp.exp(-mean) * jnp.sum(series[None], axis=1, where=later)
    tails = jnp.where(np.arange(count) == 0, -jnp.expm1(-mean), tails)
    # Of a mean of _MOST_THROWN or less no tail is near 1, which uint32 has no room for.
    return (tails * 2.0**BITS).astype(jnp.uint32)
