"""The draw of TPUs and GPUs: 1s thrown at words. No scatter, no sort, no loop.

Bits that are 1 with probability p, each by itself, are what N ~ Poisson(-n log(1 - p)) throws at
the n cells of a word leave, each at a cell drawn uniformly, with repetition: thinning makes the
hits of the cells independent Poisson numbers of mean -log(1 - p), and P(no hit) = 1 - p. A random
word u says how many: throw k is made where u is below P(N > k), a number that is computed once.

- Where p is bounded, as DropBlock's gamma is, few throws cover it for every keep_prob;
- where it is not, P = 1 - (1 - a / 128) (1 - b): bits of probability a / 128 are made 32 at a time
  from 7 random words, and b, below 1/64, is thrown.
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from dropblock.threefry import threefry
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

    For `draws.bernoulli`, whose other arguments these are; `key` is two words.
    """
    del typical
    count = bits.cells.words(bits.box)
    if bits.cells.row > BITS:
        words = _wide_rows(key, probability, bits, most, count)
    else:  # beyond the last bit of the box nothing need be drawn
        length = max(int(word).bit_length() for word in bits.inside)
        numbers = np.arange(count, dtype=np.uint32)
        words = _thrown(key, probability, bits, numbers, length, most)
    return words & bits.inside[None, :, None]


def _wide_rows(key, probability, bits, most, count):
    """Words of rows that are several words each; the last one of a row has fewer cells."""
    whole, rest = divmod(bits.cells.row, BITS)
    numbers = np.arange(count, dtype=np.uint32).reshape(-1, bits.cells.words_of_row)
    words = [
        _thrown(key, probability, bits, part.ravel(), length, most).reshape(
            bits.batch, *part.shape, bits.channels
        )
        for part, length in [(numbers[:, :whole], BITS), (numbers[:, whole:], rest)]
        if part.size
    ]
    return jnp.concatenate(words, axis=2).reshape(bits.batch, count, bits.channels)


def _thrown(key, probability, bits, numbers, length, most):
    """The words of these numbers, of which the first `length` bits are drawn.

    Args:
      probability: of a 1, at most `most`, which is at most 1/2.

    Returns:
      uint32 `[batch, numbers, channels]`.
    """
    # A power of two of cells; what is thrown beyond `length` does not count.
    size = (length - 1).bit_length()
    cells = 2**size
    digits = _DIGITS if size and _mean(cells, most) > _MOST_THROWN else 0
    if digits:
        a = jnp.floor(probability * 2.0**digits)
        probability = (probability - a / 2.0**digits) / (1.0 - a / 2.0**digits)
        most = 2.0 ** (1 - digits)
    throws = 1  # at a single cell all would be thrown at that
    if size:
        throws = _throws_needed(_mean(cells, most), bits.cells.words(bits.box))
    below = _thresholds(-cells * jnp.log1p(-probability), throws)

    random = _random_words(key, bits, numbers)
    shape = (bits.batch, len(numbers), bits.channels)
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


def _random_words(key, bits, numbers):
    """Random words for each word of these numbers, one after the other."""
    shape = (bits.batch, len(numbers), bits.channels)
    example, _, channel = (jax.lax.broadcasted_iota(jnp.uint32, shape, n) for n in range(3))
    counter = (numbers[None, :, None] * bits.channels + channel) * _PAIRS
    for n in range(_PAIRS):
        yield from threefry(key, example, counter + jnp.uint32(n))
    raise AssertionError("more random words than the counter has room for")


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
    return (jnp.minimum(tails, 1.0 - 2.0**-24) * 2.0**BITS).astype(jnp.uint32)
