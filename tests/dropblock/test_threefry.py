"""The random words: known answers, and what of a key they depend on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropblock.threefry import key_data, key_words, threefry


@pytest.mark.parametrize(
    "key, counter, cipher",
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((2**32 - 1,) * 2, (2**32 - 1,) * 2, (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_known_answers(key, counter, cipher):
    # The "kat" vectors of Salmon et al.'s Random123.
    key, counter = map(jnp.uint32, key), map(jnp.uint32, counter)
    assert tuple(map(int, threefry(tuple(key), *counter))) == cipher


@pytest.mark.parametrize("hashed", [False, True])
@pytest.mark.parametrize("length", [2, 4])
def test_every_bit_of_a_key_matters(length, hashed):
    flipped = 2 ** np.arange(32, dtype=np.uint32)[:, None, None] * np.eye(length, dtype=np.uint32)
    keys = np.random.default_rng(0).integers(2**32, size=length, dtype=np.uint32)
    keys = np.concatenate([keys[None], keys ^ flipped.reshape(-1, length)])
    streams = np.stack(
        jax.jit(jax.vmap(functools.partial(key_words, hashed=hashed)))(keys), axis=-1
    )
    assert len(np.unique(streams, axis=0)) == 32 * length + 1


@pytest.mark.parametrize("hashed", [False, True])
def test_stream_is_not_that_of_jax_random(key, hashed):
    ours = key_words(key_data(key), hashed=hashed)
    assert not np.array_equal(ours, jax.random.key_data(key))
    assert not np.array_equal(ours, jax.random.key_data(jax.random.fold_in(key, 0)))


def test_words_of_a_key_by_hand():
    drop = int.from_bytes(b"drop", "big")
    two, four = jnp.uint32([7, 8]), jnp.uint32([7, 8, 9, 10])
    first = jnp.uint32(7 ^ drop), jnp.uint32(8)
    assert key_words(two, hashed=False) == first
    assert key_words(two, hashed=True) == threefry(first, *two)
    for hashed in (False, True):
        assert key_words(four, hashed=hashed) == threefry(first, *four[2:])
