"""The random bits by themselves: their law at every probability, and where streams end.

Each count may fail on either side with a probability of 1e-6 / 1,000 at most, and fewer than 500
are looked at: below 1e-6 in all, if the library is right.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from dropblock import draws, words

TAIL = 1e-9

# From one 1 in ten million to all but one, on both sides of every branch.
PROBABILITIES = [1e-7, 1e-4, 0.03, 1 / 32, 0.0313, 0.1, 0.25, 0.3, 0.499, 0.5, 0.51, 0.9, 0.9999]


@functools.partial(jax.jit, static_argnames=("shape", "typical"))
def draw(key, shape, probability, typical=0.1):
    return draws.bernoulli(key, shape, probability, typical)


def agree(count, probability, trials):
    low = scipy.stats.binom.cdf(count, trials, probability)
    high = scipy.stats.binom.sf(count - 1, trials, probability)
    expected = trials * probability
    assert min(low, high) >= TAIL, f"{count} of {trials}, expected {expected:.1f}"


@pytest.mark.parametrize(
    "key, counter, cipher",
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((2**32 - 1,) * 2, (2**32 - 1,) * 2, (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_gives_the_known_answers(key, counter, cipher):
    # The "kat" vectors of Salmon et al.'s Random123.
    key, counter = map(jnp.uint32, key), map(jnp.uint32, counter)
    assert tuple(map(int, draws._threefry(tuple(key), *counter))) == cipher


@pytest.mark.parametrize("probability", PROBABILITIES)
def test_the_law_of_the_bits(key, probability):
    shape = (64, 2**16, 32) if probability < 1e-6 else (64, 256, 64)
    bits = draw(key, shape, jnp.float32(probability))
    agree(int(words.count(bits, (0, 1, 2)).sum()), float(np.float32(probability)), np.prod(shape))
    if probability < 1e-6:
        return
    bits = np.asarray(words.unpack(bits, 64)).reshape(64, -1)
    # Neighbours are independent: both are 1 with probability squared. Disjoint pairs.
    for distance in (1, 32, 64):
        pairs = bits[:, : bits.shape[1] // (2 * distance) * 2 * distance].reshape(-1, 2, distance)
        agree(pairs.all(1).sum(), probability**2, len(pairs) * distance)
    # And so are the examples.
    both = bits[::2] & bits[1::2]
    agree(both.sum(), probability**2, both.size)


def test_two_parts_make_up_the_probability(monkeypatch, key):
    # Counting would need 1e10 bits to see that one part is a little off.
    parts = {}

    def dense(key, shape, planes, zero):
        parts["planes"] = planes
        return jnp.zeros(shape, jnp.uint32)

    def sparse(key, shape, probability, typical, zero):
        parts["rare"] = probability
        return jnp.zeros((shape[0], shape[1] * words.width(shape[2])), jnp.uint32)

    monkeypatch.setattr(draws, "_dense", dense)
    monkeypatch.setattr(draws, "_sparse", sparse)
    for probability in [*PROBABILITIES, *np.linspace(0, 1, 50)]:
        with jax.disable_jit():  # so that the parts are numbers
            draws.bernoulli(key, (1, 1, 1), np.float32(probability), 0.1)
        planes, rare = int(parts["planes"]), float(parts["rare"])
        assert 0 <= planes <= 128 and 0 <= rare <= 1 / 32
        both = 1 - (1 - planes / 256) * (1 - rare)
        assert both == pytest.approx(min(probability, 1 - probability), abs=1e-7)


@pytest.mark.parametrize("channels", [3, 40])
def test_rare_ones_are_set_one_gap_after_the_other(channels):
    rows, sites, probability = 3, 20, jnp.float32(0.03)
    key, length = (jnp.uint32(5), jnp.uint32(7)), sites * channels
    counters = jnp.meshgrid(*(jnp.arange(n, dtype=jnp.uint32) for n in (rows, length)))
    numbers = draws._exponential(draws._threefry(key, *counters)[0].T)
    gaps = np.floor(numbers * (-1 / jnp.log1p(-probability))).astype(int) + 1
    expected = np.zeros((rows, length), bool)
    for row in range(rows):
        position = -1
        for gap in gaps[row]:
            position += gap
            if position < length:
                expected[row, position] = True
    bits = draws._sparse(key, (rows, sites, channels), probability, 0.01, jnp.uint32(0))
    unpacked = words.unpack(bits.reshape(rows, sites, -1), channels)
    np.testing.assert_array_equal(np.asarray(unpacked).reshape(rows, length), expected)


@pytest.mark.parametrize("channels", [3, 32, 40])
@pytest.mark.parametrize("probability", [0.004, 0.2, 0.8])
def test_first_and_last_positions_are_drawn_as_often(key, channels, probability):
    # No 1 is lost at the end of a stream, and none lies beyond it.
    rows, sites = 2**14, 5
    bits = draw(key, (rows, sites, channels), probability)
    unpacked = np.asarray(words.unpack(bits, bits.shape[-1] * 32))
    for place in ((0, 0), (0, channels - 1), (sites - 1, 0), (sites - 1, channels - 1)):
        agree(unpacked[(slice(None), *place)].sum(), probability, rows)
    assert not unpacked[..., channels:].any()


@pytest.mark.parametrize("probability", [0.001, 0.03, 0.3, 0.7])
def test_several_chunks_draw_what_one_draws(key, probability):
    few = draw(key, (4, 500, 32), probability, typical=1 / 32)
    np.testing.assert_array_equal(draw(key, (4, 500, 32), probability, typical=0.0), few)


@pytest.mark.parametrize("probability", [0.004, 0.2])
def test_a_long_example_is_several_streams(monkeypatch, key, probability):
    monkeypatch.setattr(draws, "_LONGEST_STREAM", 2000)
    # 3 streams of 62 sites of 32 channels, of which the last has 61.
    bits = draws.bernoulli(key, (256, 185, 32), probability, 0.1)
    assert bits.shape == (256, 185, 1)
    agree(int(words.count(bits, (0, 1, 2)).sum()), probability, 256 * 185 * 32)
    for site in (0, 61, 62, 123, 124, 184):
        agree(int(words.count(bits[:, site], (0, 1)).sum()), probability, 256 * 32)
    streams = [np.asarray(bits[:, start : start + 61]).tobytes() for start in (0, 62, 124)]
    assert len(set(streams)) == 3


def test_positions_beyond_what_float32_counts(key):
    sites, probability = 2**20, 1e-3  # 2^25 positions, of which float32 has every second one
    bits = draw(key, (1, sites, 32), probability, typical=probability)
    for channels in (0x55555555, 0xAAAAAAAA):  # the even and the odd ones
        last = words.count(bits[:, -sites // 4 :] & jnp.uint32(channels), (0, 1, 2))
        agree(int(last.sum()), float(np.float32(probability)), sites // 4 * 16)


@pytest.mark.parametrize("shape", [(3, 7, 40), (2, 1), (4, 33)])
def test_zero_and_one_are_certain(key, shape):
    assert not draw(key, shape, 0.0).any()
    np.testing.assert_array_equal(words.unpack(draw(key, shape, 1.0), shape[-1]), True)


@pytest.mark.parametrize("probability", [1e-30, 1e-42])
def test_a_vanishing_probability_draws_nothing(key, probability):
    # 1 / log(1 - p) overflows; positions must not wrap around.
    assert not draw(key, (4, 2**15, 64), probability).any()


def test_numbers_reach_both_ends():
    ends = draws._exponential(jnp.uint32([0, 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1]))
    uniform = (np.array([0, 1, 2**31 - 1]) + 0.5) / 2**32
    expected = [*-np.log1p(-uniform), *-np.log(uniform[::-1])]
    np.testing.assert_allclose(ends, expected, rtol=1e-6)


def test_any_key_implementation():
    drawn = []
    for implementation in ("threefry2x32", "rbg", "unsafe_rbg"):
        for seed in (0, 1):
            key = jax.random.key(seed, impl=implementation)
            bits = draw(key, (2, 64, 32), 0.3)
            np.testing.assert_array_equal(draw(jax.random.key_data(key), (2, 64, 32), 0.3), bits)
            drawn.append(np.asarray(bits).tobytes())
    # A seed is the same words in each, RBG's twice over.
    assert len(set(drawn)) == 2


@pytest.mark.parametrize("length", [2, 4])
def test_every_bit_of_a_key_matters(length):
    flipped = 2 ** np.arange(32, dtype=np.uint32)[:, None, None] * np.eye(length, dtype=np.uint32)
    keys = np.random.default_rng(0).integers(2**32, size=length, dtype=np.uint32)
    keys = np.concatenate([keys[None], keys ^ flipped.reshape(-1, length)])
    streams = np.stack(jax.jit(jax.vmap(draws._key_words))(keys), axis=-1)
    assert len(np.unique(streams, axis=0)) == 32 * length + 1


def test_stream_is_not_that_of_jax_random(key):
    ours = draws._key_words(key)
    assert not np.array_equal(ours, jax.random.key_data(key))
    assert not np.array_equal(ours, jax.random.key_data(jax.random.fold_in(key, 0)))
