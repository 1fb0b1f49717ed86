"""The draw of TPUs and GPUs: how many throws, how many are lost, and what a word is made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from dropblock import block_gamma, dropblock_mask, throws
from dropblock.draws import Bits
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
    drawn = throws._random_words(key, (2, 3, 32), 0)
    all_words = np.stack([np.asarray(next(drawn)) for _ in range(16)])
    assert len(np.unique(all_words)) == all_words.size
    with pytest.raises(AssertionError, match="more random words"):
        next(drawn)
    drawn = throws._random_words(key, (2, 1, 32), 2)
    np.testing.assert_array_equal(next(drawn)[:, 0], all_words[0, :, 2])


@pytest.mark.parametrize("shape", [(6,), (5, 7), (3, 64), (3, 70)])
def test_no_two_words_have_the_same_random_words(monkeypatch, shape):
    numbers, random_words = [], throws._random_words

    def watched(key, shape, first):
        numbers.extend(range(first, first + shape[1]))
        return random_words(key, shape, first)

    monkeypatch.setattr(throws, "_random_words", watched)
    key, bits = (jnp.uint32(1), jnp.uint32(2)), Bits(2, Cells(shape), shape, 3)
    drawn = throws.draw(key, jnp.float32(0.1), bits, typical=0.1, most=0.1)
    assert numbers == list(range(drawn.shape[1]))


@pytest.mark.parametrize("rule", ["paper", "exact"])
def test_no_scatter_no_sort_no_loop(key, rule):
    def mask(key, keep_prob):
        return dropblock_mask(key, (8, 14, 14, 64), keep_prob, 7, gamma_rule=rule)

    text = jax.jit(mask).trace(key, 0.9).lower(lowering_platforms=("cuda",)).as_text()
    for operation in ("scatter", "sort", "while"):
        assert f"stablehlo.{operation}" not in text
