"""The CPU's draw: gaps, the two parts of a probability, and streams."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropblock import draws, gaps, words
from dropblock.threefry import threefry


def bits_of(batch, places, channels):
    """Bits of maps whose rows are one cell, so that 32 cells are a word."""
    return draws.Bits(batch, words.Cells((places, 1)), (places, 1), channels)


def unpack(drawn, bits):
    """Packed words as bool."""
    return np.asarray(words.unpack(words.rows(drawn, bits.cells), bits.cells.shape))


def draw(key, bits, probability, typical=0.1):
    return draws.bernoulli(key, bits, probability, typical=typical, most=1.0, form="gaps")


@pytest.fixture
def agree(reference):
    return functools.partial(reference.agree, tail=1e-9)


def test_two_parts_make_up_the_probability(monkeypatch, key):
    # Counting would need 1e10 bits to see that one part is a little off.
    parts = {}

    def dense(key, bits, planes, zero):
        parts["planes"] = planes
        return jnp.uint32(0)

    def sparse(key, bits, probability, typical, zero):
        parts["rare"] = probability
        return jnp.zeros((1, 1, 1), jnp.uint32)

    monkeypatch.setattr(gaps, "_dense", dense)
    monkeypatch.setattr(gaps, "_sparse", sparse)
    for probability in [1e-4, 1 / 32, 0.0313, 0.1, 0.499, 0.5, 0.51, *np.linspace(0, 1, 50)]:
        with jax.disable_jit():  # so that the parts are numbers
            draw(key, bits_of(1, 32, 1), np.float32(probability))
        planes, rare = int(parts["planes"]), float(parts["rare"])
        assert 0 <= planes <= 128 and 0 <= rare <= 1 / 32
        both = 1 - (1 - planes / 256) * (1 - rare)
        assert both == pytest.approx(min(probability, 1 - probability), abs=1e-7)


@pytest.mark.parametrize("shape", [(7, 7), (14, 14)])
def test_each_cell_has_a_random_bit_of_its_own(shape):
    # Of probability 1/2, whose single binary digit copies the random bits: 28 of a word are used.
    key, cells, places = (jnp.uint32(5), jnp.uint32(7)), words.Cells(shape), math.prod(shape)
    bits = draws.Bits(2, cells, shape, 3)
    drawn = unpack(gaps._dense(key, bits, jnp.uint32(128), jnp.uint32(0)), bits)

    example, word, channel = np.indices((2, -(-places // 32), 3), np.uint32)
    counter = (word * 3 + channel) * 4 + 3 | 2**31
    random = np.asarray(threefry(key, example, counter)[1])[:, :, None]
    random = (random >> np.arange(32, dtype=np.uint32)[:, None] & 1).reshape(2, -1, 3)
    np.testing.assert_array_equal(np.reshape(drawn, (2, places, 3)), random[:, :places])


@pytest.mark.parametrize("channels, streams", [(3, 1), (40, 1), (40, 3)])
def test_rare_ones_are_set_one_gap_after_the_other(monkeypatch, channels, streams):
    monkeypatch.setattr(gaps, "_LONGEST_STREAM", -(-20 * channels // streams))
    rows, places, probability = 8, 20, jnp.float32(0.03)
    key, length = (jnp.uint32(5), jnp.uint32(7)), -(-places // streams) * channels
    counters = jnp.meshgrid(*(jnp.arange(n, dtype=jnp.uint32) for n in (rows * streams, length)))
    numbers = gaps._exponential(threefry(key, *counters)[0].T)
    steps = np.floor(numbers * (-1 / jnp.log1p(-probability))).astype(int) + 1
    expected = np.zeros((rows * streams, length), bool)
    for row in range(rows * streams):
        position = -1
        for step in steps[row]:
            position += step
            if position < length:
                expected[row, position] = True
    expected = expected.reshape(rows, -1, channels)[:, :places]
    bits = bits_of(rows, places, channels)
    drawn = gaps._sparse(key, bits, probability, 0.01, jnp.uint32(0))
    np.testing.assert_array_equal(unpack(drawn, bits).reshape(expected.shape), expected)


@pytest.mark.parametrize("probability", [0.001, 0.03, 0.3, 0.7])
def test_several_chunks_draw_what_one_draws(key, probability):
    bits = bits_of(4, 500, 32)
    few = draw(key, bits, probability, typical=1 / 32)
    np.testing.assert_array_equal(draw(key, bits, probability, typical=0.0), few)


@pytest.mark.parametrize("probability", [0.004, 0.2])
def test_a_long_example_is_several_streams(agree, monkeypatch, key, probability):
    monkeypatch.setattr(gaps, "_LONGEST_STREAM", 2000)
    # 3 streams of 62 places of 32 channels, of which the last has 61.
    bits = bits_of(256, 185, 32)
    packed = draw(key, bits, probability)
    drawn = unpack(packed, bits)
    assert int(words.count(packed, (0, 1, 2)).sum()) == drawn.sum()  # none beyond the last place
    agree(drawn.sum(), probability, 256 * 185 * 32)
    for place in (0, 61, 62, 123, 124, 184):
        agree(drawn[:, place].sum(), probability, 256 * 32)
    streams = [drawn[:, start : start + 61].tobytes() for start in (0, 62, 124)]
    assert len(set(streams)) == 3


def test_positions_beyond_what_float32_counts(agree, key):
    places, probability = 2**20, 1e-3  # 2^25 positions, of which float32 has every second one
    drawn = draw(key, bits_of(1, places, 32), probability, typical=probability)
    for channels in (slice(0, None, 2), slice(1, None, 2)):
        last = words.count(drawn[:, -(places // 128) :, channels], (0, 1, 2))
        agree(int(last.sum()), float(np.float32(probability)), places // 4 * 16)


def test_numbers_reach_both_ends():
    ends = gaps._exponential(jnp.uint32([0, 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1]))
    uniform = (np.array([0, 1, 2**31 - 1]) + 0.5) / 2**32
    expected = [*-np.log1p(-uniform), *-np.log(uniform[::-1])]
    np.testing.assert_allclose(ends, expected, rtol=1e-6)
