"""The law of the random bits, at every probability and in every form.

Each count may fail on either side with a probability of 1e-6 / 2,000 at most, and fewer than 1,000
are looked at: below 1e-6 in all, if the library is right.
"""

import collections
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropblock import draws, words

TAIL = 5e-10

# From one 1 in ten million to all but one, on both sides of every branch.
PROBABILITIES = [1e-7, 1e-4, 0.03, 1 / 32, 0.0313, 0.1, 0.25, 0.3, 0.499, 0.5, 0.51, 0.9, 0.9999]

every_form = pytest.mark.parametrize("form", draws.FORMS)


@functools.partial(jax.jit, static_argnames=("batch", "shape", "channels", "box", "most", "form"))
def draw(key, batch, shape, channels, probability, *, box=None, most=1.0, form):
    bits = draws.Bits(batch, words.Cells(shape), box or shape, channels)
    return draws.bernoulli(key, bits, probability, typical=0.1, most=most, form=form)


def bits_of(drawn, shape):
    """Packed words as bool, `[batch, *shape, channels]`."""
    cells = words.Cells(shape)
    missing = cells.words(shape) - drawn.shape[1]
    drawn = jnp.pad(drawn, ((0, 0), (0, missing), (0, 0)))
    return np.asarray(words.unpack(words.rows(drawn, cells), shape))


@pytest.fixture
def agree(reference):
    return functools.partial(reference.agree, tail=TAIL)


# A row is one word; several words, all of which hold as many cells; several, the last fewer.
@every_form
@pytest.mark.parametrize("shape", [(64, 32), (16, 128), (40, 50)])
@pytest.mark.parametrize("probability", PROBABILITIES)
def test_the_law_of_the_bits(agree, key, probability, shape, form):
    channels, exact = 8, float(np.float32(probability))
    if probability < 1e-6:
        drawn = draw(key, 2**12, shape, channels, jnp.float32(probability), form=form)
        agree(int(words.count(drawn, (0, 1, 2)).sum()), exact, 2**12 * np.prod(shape) * channels)
        return
    drawn = draw(key, 64, shape, channels, jnp.float32(probability), form=form)
    bits = bits_of(drawn, shape)
    agree(bits.sum(), exact, bits.size)
    # Neighbours are independent: both are 1 with probability squared. Disjoint pairs of cells of a
    # word, of words, of rows, of channels and of examples.
    for axis, distance in ((2, 1), (2, 2), (2, shape[1] // 2), (1, 1), (3, 1), (0, 1)):
        pairs = np.moveaxis(bits, axis, 0)
        pairs = pairs[: len(pairs) // (2 * distance) * 2 * distance]
        pairs = pairs.reshape(-1, 2, distance, *pairs.shape[1:])
        agree(pairs.all(1).sum(), exact**2, pairs[:, 0].size)


@every_form
def test_a_bound_on_the_probability_changes_no_law(agree, key, form):
    # Of the throws; also just below 1/2, where nothing is turned round.
    for most in (0.004, 0.06, 0.17, 0.2, 0.5):
        drawn = draw(key, 512, (4, 8), 64, jnp.float32(most), most=most, form=form)
        agree(int(words.count(drawn, (0, 1, 2)).sum()), most, 512 * 32 * 64)
        bits = bits_of(drawn, (4, 8))
        agree((bits[:, ::2] & bits[:, 1::2]).sum(), most**2, bits.size // 2)


@every_form
@pytest.mark.parametrize("probability", [0.004, 0.2, 0.8])
@pytest.mark.parametrize(
    "shape, box", [((9,), (9,)), ((4, 5), (2, 5)), ((6, 34), (3, 34)), ((3, 2, 70), (2, 1, 70))]
)
def test_what_is_drawn_is_the_box(agree, key, shape, box, probability, form):
    drawn = draw(key, 2**12, shape, 3, probability, box=box, form=form)
    bits = bits_of(drawn, shape)
    inside = (slice(None), *map(slice, box))
    # No 1 is lost at either end of the box, and none lies beyond it, nor in the words' unused bits.
    assert bits[inside].sum() == bits.sum() == int(words.count(drawn, (0, 1, 2)).sum())
    for place in ((0,) * len(box), tuple(size - 1 for size in box)):
        agree(bits[(slice(None), *place)].sum(), probability, 2**12 * 3)


@every_form
@pytest.mark.parametrize("shape, channels", [((3, 7), 40), ((), 5), ((2,), 1), ((4, 33), 2)])
def test_zero_and_one_are_certain(key, shape, channels, form):
    assert not draw(key, 3, shape, channels, 0.0, form=form).any()
    ones = draw(key, 3, shape, channels, 1.0, form=form)
    np.testing.assert_array_equal(bits_of(ones, shape), True)


@every_form
@pytest.mark.parametrize("probability", [1e-30, 1e-42])
def test_a_vanishing_probability_draws_nothing(key, probability, form):
    # 1 / log(1 - p) overflows; positions must not wrap around.
    assert not draw(key, 4, (2**15,), 64, probability, form=form).any()


@every_form
def test_any_key_implementation(key, form):
    drawn = []
    for implementation in ("threefry2x32", "rbg", "unsafe_rbg"):
        for seed in (0, 1):
            key = jax.random.key(seed, impl=implementation)
            bits = draw(key, 2, (64,), 32, 0.3, form=form)
            again = draw(jax.random.key_data(key), 2, (64,), 32, 0.3, form=form)
            np.testing.assert_array_equal(again, bits)
            drawn.append(np.asarray(bits).tobytes())
    # A seed is the same words in each, RBG's twice over; the throws hash those of RBG alone.
    assert len(set(drawn)) == {"gaps": 2, "throws": 4}[form]


@pytest.mark.parametrize("platform", ["cpu", "tpu", "cuda"])
def test_the_platform_of_the_lowering_chooses_the_form(key, platform):
    # On this machine, whatever it is.
    def operations(form):
        traced = draw.trace(key, 4, (14, 14), 8, 0.1, form=form)
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        return collections.Counter(re.findall(r"stablehlo\.\w+", text))

    # What is left of the choice is a case of one branch, and constants.
    arithmetic = ("while", "scatter", "shift_left", "xor", "add", "log_plus_one", "select")
    chosen, gaps, throws = (
        [operations(form)[f"stablehlo.{name}"] for name in arithmetic]
        for form in (None, "gaps", "throws")
    )
    assert gaps != throws
    assert chosen == (gaps if platform == "cpu" else throws)
