"""Dropout, SpatialDropout and DropPath. Their joint laws are in test_statistics.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropblock import drop_path, dropout, spatial_dropout

BASELINES = [dropout, spatial_dropout, drop_path]
# The axes over which each is one draw.
TOGETHER = {dropout: (), spatial_dropout: (1, 2), drop_path: (1, 2, 3)}
SHAPE = (16, 3, 5, 32)

every = pytest.mark.parametrize("drop", BASELINES, ids=lambda drop: drop.__name__)


@functools.partial(jax.jit, static_argnums=0)
def run(drop, key, x, keep_prob):
    return drop(key, x, keep_prob, return_kept=True)


@every
def test_what_is_dropped_together_and_how_it_is_scaled(key, drop):
    x = 1 + jnp.abs(jax.random.normal(jax.random.key(17), SHAPE))
    y, kept = run(drop, key, x, 0.7)
    mask = np.asarray(y) > 0
    np.testing.assert_allclose(y, np.where(mask, x / np.float32(0.7), 0), rtol=1e-6)
    together = TOGETHER[drop]
    np.testing.assert_array_equal(mask.all(together), mask.any(together))
    # Across everything else the draws differ.
    assert 0 < mask.all(together).mean() < 1
    assert len({example.tobytes() for example in mask}) == (2 if drop is drop_path else 16)
    assert kept.shape == (16,) and kept.dtype == jnp.float32
    np.testing.assert_allclose(kept, mask.reshape(16, -1).mean(1), rtol=1e-6)


@every
@pytest.mark.parametrize("traced", [False, True])
def test_keep_prob_one_is_the_identity_and_zero_keeps_nothing(key, drop, traced):
    x = jnp.ones(SHAPE).at[0, 0].set(jnp.inf).at[1, 1].set(jnp.nan)

    def call(keep_prob):
        if traced:
            return run(drop, key, x, keep_prob)
        return jax.jit(lambda x: drop(key, x, keep_prob, return_kept=True))(x)

    y, kept = call(1.0)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(kept, 1)
    y, kept = call(0.0)
    np.testing.assert_array_equal(y, 0)
    np.testing.assert_array_equal(kept, 0)


@every
def test_a_keep_prob_that_is_no_number_shows(key, drop):
    y, kept = run(drop, key, jnp.ones(SHAPE), jnp.nan)
    assert jnp.isnan(y).any() and jnp.isnan(kept).all()


@every
def test_arrays_outside_the_range_are_clipped_to_it(key, drop):
    x = jnp.arange(480.0).reshape(16, 30)[:, None, :]
    np.testing.assert_array_equal(run(drop, key, x, jnp.float32(1.5))[0], x)
    np.testing.assert_array_equal(run(drop, key, x, jnp.float32(-0.5))[0], 0)


@every
def test_where_nothing_is_kept_the_gradient_is_zero(key, drop):
    x = jnp.ones((16, 1, 30))
    gradient = jax.jit(jax.grad(lambda x, keep_prob: drop(key, x, keep_prob).sum()))
    np.testing.assert_array_equal(gradient(x, 0.0), 0)


@every
def test_gradient_is_mask_times_scale(key, drop):
    x = jax.random.normal(jax.random.key(17), SHAPE)

    @jax.jit
    def derivatives(x):
        def f(x):
            return jnp.sum(jnp.sin(drop(key, x, 0.7)))

        gradient = jax.grad(f)
        second = jax.grad(lambda x: gradient(x).sum())
        return drop(key, jnp.ones_like(x), 0.7), gradient(x), second(x)

    factor, first, second = derivatives(x)
    np.testing.assert_allclose(first, np.cos(x * factor) * factor, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(second, -np.sin(x * factor) * factor**2, rtol=2e-5, atol=1e-6)


@every
def test_dtype_is_kept_and_rounded_once(key, drop):
    x = jax.random.normal(jax.random.key(17), SHAPE, jnp.bfloat16)
    y, kept = run(drop, key, x, 0.7)
    wide, _ = run(drop, key, x.astype(jnp.float32), 0.7)
    assert y.dtype == x.dtype and kept.dtype == jnp.float32
    np.testing.assert_array_equal(y, wide.astype(x.dtype))


@every
def test_draw_depends_on_key_and_position_alone(key, drop):
    ones = jnp.ones(SHAPE)
    y, _ = run(drop, key, ones, 0.7)
    np.testing.assert_array_equal(run(drop, key, ones[:5], 0.7)[0], y[:5])
    assert (run(drop, jax.random.key(1), ones, 0.7)[0] != y).any()


@pytest.mark.parametrize("drop", [dropout, drop_path])
def test_any_rank_will_do(key, drop):
    assert run(drop, key, jnp.ones((4, 8)), 0.5)[0].shape == (4, 8)


@every
@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"keep_prob": -0.1}, ValueError, r"keep_prob .*got -0\.1"),
        ({"keep_prob": 1.5}, ValueError, r"keep_prob .*got 1\.5"),
        ({"x": jnp.ones(SHAPE, jnp.int32)}, TypeError, "x .*floating.*got int32"),
        ({"rng": None}, ValueError, "rng must be a JAX key, got None"),
    ],
)
def test_errors_name_the_argument_and_its_value(key, drop, change, error, message):
    with pytest.raises(error, match=message):
        drop(**{"rng": key, "x": jnp.ones(SHAPE), "keep_prob": 0.9} | change)


def test_spatial_dropout_needs_a_spatial_axis(key):
    with pytest.raises(ValueError, match=r"\[batch, \*spatial, channels\].*got \(4, 8\)"):
        spatial_dropout(key, jnp.ones((4, 8)), 0.9)
