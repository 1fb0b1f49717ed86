"""The form of pooling for CPUs against XLA's windows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models import pooling

_CASES = [
    ((5, 6), (3, 3), (1, 1)),
    ((5, 6), (3, 3), (2, 2)),
    ((6, 5), (2, 2), (2, 2)),
    ((1, 2), (3, 3), (2, 2)),
]


@pytest.mark.parametrize(("size", "window", "strides"), _CASES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_values_and_gradients_are_xlas(size, window, strides, dtype):
    x = jax.random.normal(jax.random.key(0), (2, *size, 3), dtype)
    tolerance = 1e-6 if dtype == jnp.float32 else 2e-2
    for ours, xlas in (
        (pooling.max_pool, lambda *a: nnx.max_pool(*a, "SAME")),
        (
            pooling.avg_pool,
            lambda *a: nnx.avg_pool(*a, "SAME", count_include_pad=False).astype(dtype),
        ),
    ):
        out, back = jax.vjp(lambda x, pool=ours: pool(x, window, strides), x)
        want, want_back = jax.vjp(lambda x, pool=xlas: pool(x, window, strides), x)
        assert "reduce_window" not in str(
            jax.make_jaxpr(lambda x, p=ours: p(x, window, strides))(x)
        )
        assert out.dtype == dtype
        cotangent = jnp.cos(jnp.arange(out.size).reshape(out.shape)).astype(dtype)
        for got, wanted in ((out, want), (back(cotangent)[0], want_back(cotangent)[0])):
            np.testing.assert_allclose(
                got.astype(jnp.float32), wanted.astype(jnp.float32), rtol=tolerance, atol=tolerance
            )


def test_padding_does_not_count():
    np.testing.assert_array_equal(pooling.avg_pool(jnp.ones((1, 3, 3, 1)), (3, 3), (1, 1)), 1)
    np.testing.assert_array_equal(pooling.max_pool(-jnp.ones((1, 3, 3, 1)), (3, 3), (1, 1)), -1)
