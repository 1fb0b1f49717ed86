"""Masks as bits, against numpy's own packing."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropblock import words


def pack(bits):
    """numpy's packing of bool `[..., channels]`."""
    padded = np.zeros((*bits.shape[:-1], words.width(bits.shape[-1]) * 32), bool)
    padded[..., : bits.shape[-1]] = bits
    return np.packbits(padded, axis=-1, bitorder="little").view(np.uint32)


@pytest.mark.parametrize("channels", [1, 5, 31, 32, 33, 64, 80])
def test_bits_round_trip(channels):
    bits = np.random.default_rng(0).random((3, 4, channels)) < 0.4
    packed = jnp.asarray(pack(bits))
    assert packed.shape == (3, 4, -(-channels // 32))
    np.testing.assert_array_equal(words.unpack(packed, channels), bits)
    np.testing.assert_array_equal(
        words.count(packed, (1, 2)), bits.sum((1, 2))[:, None, None], strict=False
    )
    full = jnp.full_like(packed, 2**32 - 1)
    np.testing.assert_array_equal(words.clear_padding(full, channels), pack(np.ones_like(bits)))


@pytest.mark.parametrize(
    "spatial, block",
    [((9,), (4,)), ((7, 5), (3, 2)), ((6, 6), (6, 6)), ((5, 8), (1, 8)), ((3, 4, 5), (2, 3, 1))],
)
def test_every_bit_grows_to_its_block(spatial, block):
    legal = [size - side + 1 for size, side in zip(spatial, block, strict=True)]
    seeds = np.random.default_rng(1).random((2, *legal, 40)) < 0.1
    grown = np.zeros((2, *spatial, 40), bool)
    for offset in itertools.product(*map(range, block)):
        cells = tuple(slice(o, o + n) for o, n in zip(offset, legal, strict=True))
        grown[(slice(None), *cells)] |= seeds
    out = jax.jit(words.grow, static_argnums=1)(pack(seeds), block)
    np.testing.assert_array_equal(words.unpack(out, 40), grown)


def test_kept_fraction_of_all_and_nothing_is_exact():
    for cells in (41, 49, 200_704):
        kept = jax.jit(words.kept_fraction, static_argnums=1)(jnp.uint32([0, cells]), cells)
        np.testing.assert_array_equal(kept, [1, 0])


def test_kept_fraction_of_a_part():
    for cells in (41, 49, 200_704):
        dropped = np.array([1, cells // 3, cells - 1])
        kept = words.kept_fraction(jnp.asarray(dropped, jnp.uint32), cells)
        np.testing.assert_allclose(kept, (cells - dropped) / cells, rtol=1e-6)
