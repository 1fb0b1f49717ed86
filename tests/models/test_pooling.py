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

        def on(platform, pool=ours):
            return lambda x: pool(x, window, strides, platform)

        assert "reduce_window" not in str(jax.make_jaxpr(on("cpu"))(x))
        assert "reduce_window" in str(jax.make_jaxpr(on("tpu"))(x))
        out, back = jax.vjp(on("cpu"), x)
        want, want_back = jax.vjp(lambda x, pool=xlas: pool(x, window, strides), x)
        assert out.dtype == dtype
        cotangent = jnp.cos(jnp.arange(out.size).reshape(out.shape)).astype(dtype)
        for got, wanted in ((out, want), (back(cotangent)[0], want_back(cotangent)[0])):
            np.testing.assert_allclose(
                got.astype(jnp.float32), wanted.astype(jnp.float32), rtol=tolerance, atol=tolerance
            )


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize("size", [(4, 6), (5, 8), (1, 7)])
def test_padding_alike_on_both_sides(platform, size):
    x = -jax.random.uniform(jax.random.key(0), (2, *size, 3))  # less than 0, which pads nothing
    found = pooling.max_pool(x, (3, 3), (2, 2), platform, ((1, 1), (1, 1)))
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))[:, ::2, ::2]
    np.testing.assert_array_equal(found, windows.max((4, 5)))


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize(("size", "window", "strides"), _CASES)
def test_of_equal_values_the_first_gets_the_gradient(platform, size, window, strides):
    # Few values, so that nearly every window has ties, as where blocks have been dropped.
    x = jax.random.randint(jax.random.key(0), (2, *size, 3), 0, 3).astype(jnp.float32)
    out, back = jax.vjp(lambda x: pooling.max_pool(x, window, strides, platform), x)
    cotangent = np.arange(1.0, 1 + out.size, dtype=np.float32).reshape(out.shape)
    literal = np.zeros_like(x)
    pads = jax.lax.padtype_to_pads(size, window, strides, "SAME")
    for b, i, j, c in np.ndindex(out.shape):
        rows = range(*_under(i, window[0], strides[0], pads[0][0], size[0]))
        columns = range(*_under(j, window[1], strides[1], pads[1][0], size[1]))
        # In reading order; max keeps the first of equal ones.
        place = max(((y, z) for y in rows for z in columns), key=lambda p: x[b, p[0], p[1], c])
        literal[b, place[0], place[1], c] += cotangent[b, i, j, c]
    np.testing.assert_allclose(back(jnp.asarray(cotangent))[0], literal, rtol=1e-6)


def _under(index, side, stride, before, size):
    """The first cell under a window and the one after its last."""
    start = index * stride - before
    return max(start, 0), min(start + side, size)


def test_nan_is_the_largest():
    x = jnp.array([1.0, jnp.nan, 2.0, 3.0]).reshape(1, 1, 4, 1)
    y = pooling.max_pool(x, (1, 2), (1, 1), "cpu")[0, 0, :, 0]
    np.testing.assert_array_equal(y, [np.nan, np.nan, 3.0, 3.0])


def test_padding_does_not_count():
    ones = jnp.ones((1, 3, 3, 1))
    np.testing.assert_array_equal(pooling.avg_pool(ones, (3, 3), (1, 1), "cpu"), 1)
    np.testing.assert_array_equal(pooling.max_pool(-ones, (3, 3), (1, 1), "cpu"), -1)


@pytest.mark.parametrize("pool", [pooling.max_pool, pooling.avg_pool])
def test_any_is_the_form_of_the_platform_it_is_lowered_for(pool):
    traced = jax.jit(lambda x: pool(x, (3, 3), (2, 2), "any")).trace(jnp.ones((1, 5, 5, 2)))
    for platform, windows in (("cpu", False), ("tpu", True), ("cuda", True)):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert ("stablehlo.reduce_window" in text) == windows
