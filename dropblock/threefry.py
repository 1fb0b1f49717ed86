"""Random words that depend on a key and a counter alone, so on no number of devices."""

import jax
import jax.numpy as jnp

# "drop": parts our streams from what jax.random draws with the same key.
_APART = 0x64726F70


def key_data(rng: jax.Array) -> jax.Array:
    """The words of a JAX key of any implementation, uint32 `[2]` or `[4]`."""
    typed = jnp.issubdtype(rng.dtype, jax.dtypes.prng_key)
    return (jax.random.key_data(rng) if typed else rng).astype(jnp.uint32)


def key_words(data: jax.Array, *, hashed: bool) -> tuple[jax.Array, jax.Array]:
    """Two words of key for `threefry`, from those of a JAX key.

    Args:
      hashed: by `threefry` itself. Without, two words are taken as they are, but for a constant:
        in a network of many sites a compiler has a hundred scalar operations less for each.
    """
    first = data[0] ^ jnp.uint32(_APART), data[1]
    if len(data) == 2 and not hashed:
        return first
    # The first and last two words: all of them for Threefry (2) and RBG (4).
    return threefry(first, data[-2], data[-1])


# Its hundred operations are traced once for all sites of a network whose maps are alike.
@jax.jit
def threefry(key, high, low) -> tuple[jax.Array, jax.Array]:
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
