"""The fence against XLA's CPU compiler: an identity, behind which nothing is computed again."""

import jax.numpy as jnp
import numpy as np
import pytest

from dropblock.cpu import store


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint8", "uint16"])
@pytest.mark.parametrize("shape", [(), (3,), (0, 2), (2, 3, 4)])
def test_what_is_stored_is_unchanged(shape, dtype):
    values = [0, 1, 7, 255] if dtype.startswith("u") else [-3.5, 0, -np.inf, np.inf, np.nan, -1e-3]
    x = jnp.resize(jnp.array(values, dtype), shape)
    stored = store(x)
    assert stored.dtype == x.dtype and stored.shape == shape
    # NumPy tells the NaNs of bfloat16 from one another.
    np.testing.assert_array_equal(*(np.asarray(y, np.float32) for y in (stored, x)))


def test_what_is_stored_is_written_to_memory(optimised_jit):
    # Each square is read by 32 sums.
    def sums(x, fence):
        return (fence(x * x)[:, None] + jnp.arange(32.0)[None, :, None]).sum(2)

    x = jnp.ones((64, 1024))
    # Into the fence and out of it.
    for fence, least, most in ((lambda x: x, 0, 0), (store, 1, 2)):
        compiled = optimised_jit(lambda x, fence=fence: sums(x, fence)).lower(x).compile()
        written = compiled.memory_analysis().temp_size_in_bytes
        assert least <= written / x.nbytes < most + 0.1
