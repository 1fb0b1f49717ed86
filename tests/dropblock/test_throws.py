"""The draw of TPUs and GPUs: how many throws, how many are lost, and what a word is made of."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from dropblock import block_gamma, dropblock_mask, throws
from dropblock.draws import Bits
from dropblock.threefry import key_words, threefry
from dropblock.words import Cells


@pytest.mark.parametrize("mean", [1e-6, 0.01, 0.2, 1.0, 2.1, 6.0])
def test_thresholds_are_the_tails_of_poisson(mean):
    count = 30
    below = throws._thresholds(jnp.float32(mean), count)
    assert below.shape == (count,) and below.dtype == jnp.uint32
    exact = scipy.stats.poisson.sf(np.arange(count), mean) * 2.0**32
    # float32's rounding, and that of a whole number.
    np.testing.assert_allclose(below, exact, rtol=1e-5, atol=1)


def test_no_throw_where_nothing_is_dropped():
    assert not throws._thresholds(jnp.float32(0), 12).any()


def test_no_random_word_is_below_a_probability_of_zero(monkeypatch):
    least = jnp.zeros((2, 2, 3), jnp.uint32)
    monkeypatch.setattr(throws, "_random_words", lambda *_: itertools.repeat(least))
    key, bits = (jnp.uint32(1), jnp.uint32(2)), Bits(2, Cells((5, 7)), (5, 7), 3)
    assert not throws.draw(key, jnp.float32(0), bits, typical=0.1, most=0.1).any()


@pytest.mark.parametrize("words", [1, 7, 200])
def test_a_map_loses_a_throw_less_than_once_in_ten_billion(words):
    means = np.geomspace(1e-7, 6.0, 10_000)
    counts = np.array([throws._throws_needed(mean, words) for mean in means.tolist()])
    assert (words * scipy.stats.poisson.sf(counts, means) < 1e-10).all()
    # And no more than it takes, but for the estimate.
    one_less, two_less = (words * scipy.stats.poisson.sf(counts - n, means) for n in (1, 2))
    several = counts > 1
    assert (two_less[several] > 1e-10).all() and (one_less[several] > 1e-10).mean() > 0.99


@pytest.mark.parametrize(
    "spatial, block", [((14, 14), 7), ((11, 13), 7), ((40, 40), 7), ((65, 65), 4)]
)
def test_at_keep_prob_zero_no_seed_is_missing(key, spatial, block):
    # Most seeds are thrown here; every word's number of seeds has its law.
    maps, box = 512, tuple(size - block + 1 for size in spatial)
    cells = Cells((spatial[0], box[1]))
    gamma = block_gamma(0.0, spatial, block)
    bits = throws.draw(
        (jnp.uint32(3), jnp.uint32(4)),
        jnp.float32(gamma),
        Bits(maps, cells, box, 32),
        typical=gamma,
        most=gamma,
    )
    for word, inside in zip(np.moveaxis(np.asarray(bits), 1, 0), cells.box(box), strict=True):
        legal = int(inside).bit_count()
        counts = np.bincount(np.bitwise_count(word).ravel(), minlength=legal + 1)
        law = scipy.stats.binom.pmf(np.arange(legal + 1), legal, gamma) * word.size
        often = law > 20
        z = (counts[often] - law[often]) / np.sqrt(law[often])
        assert abs(z).max() < 6.5


def test_random_words_are_of_their_word_alone():
    key = (jnp.uint32(1), jnp.uint32(2))
    all_words = np.stack(throws._random_words(key, (2, 3, 32), 0, 16))
    assert len(np.unique(all_words)) == all_words.size == 16 * 2 * 3 * 32
    with pytest.raises(AssertionError, match="more random words"):
        throws._random_words(key, (2, 3, 32), 0, 17)
    last = throws._random_words(key, (2, 1, 32), 2, 3)
    np.testing.assert_array_equal(np.stack(last)[:, :, 0], all_words[:4, :, 2])


@pytest.mark.parametrize("pairs", [1, 2, 5])
def test_random_words_at_once_are_those_drawn_one_by_one(pairs):
    key, counters = (jnp.uint32(1), jnp.uint32(2)), np.arange(3 * pairs, dtype=np.uint32) * 7
    one_by_one, at_once = (
        form(key, (2, 3, 4), counters.reshape(pairs, 3))
        for form in (throws._one_by_one, throws._at_once)
    )
    np.testing.assert_array_equal(np.stack(one_by_one), np.stack(at_once))


def test_a_tpu_draws_its_random_words_at_once(key):
    def barriers(platform):
        mask = jax.jit(lambda key: dropblock_mask(key, (8, 14, 14, 64), 0.9, 7))
        text = mask.trace(key).lower(lowering_platforms=(platform,)).as_text()
        return text.count("optimization_barrier")

    assert barriers("tpu") == 1
    assert barriers("cuda") == 0


@pytest.mark.parametrize("shape", [(6,), (5, 7), (3, 64), (3, 70)])
def test_no_two_words_have_the_same_random_words(monkeypatch, shape):
    numbers, random_words = [], throws._random_words

    def watched(key, shape, first, needed):
        numbers.extend(range(first, first + shape[1]))
        return random_words(key, shape, first, needed)

    monkeypatch.setattr(throws, "_random_words", watched)
    key, bits = (jnp.uint32(1), jnp.uint32(2)), Bits(2, Cells(shape), shape, 3)
    drawn = throws.draw(key, jnp.float32(0.1), bits, typical=0.1, most=0.1)
    assert numbers == list(range(drawn.shape[1]))


@pytest.mark.parametrize("probability, most", [(0.09, 0.1), (0.09, 0.5), (0.3, 0.3)])
@pytest.mark.parametrize(
    "shape, size", [((2, 32), 5), ((3, 11), 5), ((11,), 4), ((7,), 3), ((3,), 2), ((1,), 0)]
)
def test_throw_by_throw(shape, size, probability, most):
    data, channels = jnp.uint32([1, 2]), 3
    bits = Bits(4, Cells(shape), shape, channels)
    thrown = throws.draw(data, jnp.float32(probability), bits, typical=0.1, most=most)
    digits = 7 if -(2**size) * np.log1p(-most) > 6 else 0
    a = int(probability * 128) if digits else 0
    mean = -(2**size) * np.log1p(-(probability - a / 128) / (1 - a / 128))
    below = scipy.stats.poisson.sf(np.arange(40), mean) * 2.0**32
    key = key_words(data, hashed=False)
    for example, word, channel in np.ndindex(thrown.shape):
        counters = (word * channels + channel) * 8 + np.arange(8, dtype=np.uint32)
        random = np.stack(threefry(key, jnp.uint32(example), counters), axis=1).ravel().tolist()
        expected = 0
        for digit in range(digits):
            one = a >> digit & 1
            expected = expected | random[digit] if one else expected & random[digit]
        u, *places = random[digits:]
        for k in range(int((u < below).sum())):
            each = 32 // size if size else 1  # places in a random word
            expected |= 1 << (places[k // each] >> k % each * size & 2**size - 1)
        assert int(thrown[example, word, channel]) == expected & int(bits.inside[word])


def test_no_throw_is_lost_at_any_probability(monkeypatch):
    thresholds, lost = throws._thresholds, []

    def watched(mean, count):
        lost.append(scipy.stats.poisson.sf(count, float(mean)))
        return thresholds(mean, count)

    monkeypatch.setattr(throws, "_thresholds", watched)
    key, bits = (jnp.uint32(1), jnp.uint32(2)), Bits(1, Cells((8, 4)), (8, 4), 1)
    for most in (0.01, 0.1, 0.17, 0.3, 0.5):
        # The last is just below a whole number of 1/128, where most is left to be thrown.
        for probability in (most / 2, most, np.floor(most * 128) / 128 - 1e-6):
            throws.draw(key, jnp.float32(probability), bits, typical=0.1, most=most)
    assert len(lost) == 15 and max(lost) < 1e-10


@pytest.mark.parametrize("rule", ["paper", "exact"])
def test_no_scatter_no_sort_no_loop(key, rule):
    def mask(key, keep_prob):
        return dropblock_mask(key, (8, 14, 14, 64), keep_prob, 7, gamma_rule=rule)

    text = jax.jit(mask).trace(key, 0.9).lower(lowering_platforms=("cuda",)).as_text()
    for operation in ("scatter", "sort", "while"):
        assert f"stablehlo.{operation}" not in text
