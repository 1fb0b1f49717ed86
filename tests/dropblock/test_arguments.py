"""What one call takes, and how it refuses the rest."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropblock import dropblock, dropblock_mask


def test_numpy_inputs_are_welcome(key):
    x = np.ones((3, 8, 8, 4), np.float32)
    y = dropblock(key, x, np.float32(0.7), np.int64(3))
    np.testing.assert_array_equal(y, dropblock(key, jnp.asarray(x), 0.7, [3, 3]))


def test_raw_uint32_key_is_a_key_too():
    new = dropblock(jax.random.key(3), jnp.ones((3, 8, 8, 4)), 0.7, 3)
    np.testing.assert_array_equal(
        dropblock(jax.random.PRNGKey(3), jnp.ones((3, 8, 8, 4)), 0.7, 3), new
    )


@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"keep_prob": -0.1}, ValueError, r"keep_prob .*\[0, 1\].*got -0\.1"),
        ({"keep_prob": 1.5}, ValueError, r"keep_prob .*\[0, 1\].*got 1\.5"),
        ({"keep_prob": np.float32(1.5)}, ValueError, r"keep_prob .*got 1\.5"),
        ({"keep_prob": np.float64(-2)}, ValueError, r"keep_prob .*got -2"),
        ({"keep_prob": float("nan")}, ValueError, "keep_prob .*got nan"),
        # Not one for each channel, which would broadcast.
        ({"keep_prob": np.full(3, 0.9)}, ValueError, r"keep_prob .*scalar.*got array"),
        ({"keep_prob": None}, ValueError, "keep_prob .*got None"),
        ({"keep_prob": "0.9"}, ValueError, "keep_prob .*got '0.9'"),
        ({"block_size": 0}, ValueError, "block_size .*at least 1.*got 0"),
        ({"block_size": (3, 0)}, ValueError, r"block_size .*got \(3, 0\)"),
        ({"block_size": (3,)}, ValueError, r"block_size .*2 spatial axes.*got \(3,\)"),
        ({"block_size": (3, 3, 3)}, ValueError, r"block_size .*got \(3, 3, 3\)"),
        ({"block_size": 3.0}, TypeError, r"block_size .*int.*got 3\.0"),
        ({"block_size": "7"}, TypeError, "block_size .*got '7'"),
        ({"gamma_rule": "rate"}, ValueError, r"gamma_rule .*'paper', 'exact'.*got 'rate'"),
        ({"normalize": "layer"}, ValueError, r"normalize .*'sample'.*got 'layer'"),
        ({"normalize": False}, ValueError, "normalize .*got False"),
        ({"x": jnp.ones((2, 8, 8, 3), jnp.int32)}, TypeError, "x .*floating.*got int32"),
        ({"x": jnp.ones((2, 3))}, ValueError, r"\[batch, \*spatial, channels\].*got \(2, 3\)"),
        ({"x": jnp.ones((2, 8, 0, 3))}, ValueError, r"empty.*got .*\(8, 0\)"),
        ({"rng": None}, ValueError, "rng must be a JAX key, got None"),
    ],
)
def test_errors_name_the_argument_and_its_value(key, change, error, message, jitted):
    arguments = {"rng": key, "x": jnp.ones((2, 8, 8, 3)), "keep_prob": 0.9, "block_size": 3}
    arguments |= change
    call = functools.partial(dropblock, **arguments)
    if jitted:
        # At trace time, before anything compiles.
        x = arguments.pop("x")
        call = functools.partial(jax.jit(functools.partial(dropblock, **arguments)), x=x)
    with pytest.raises(error, match=message):
        call()


def test_mask_rejects_a_shape_without_spatial_axes(key):
    with pytest.raises(ValueError, match=r"shape .*got \(4, 8\)"):
        dropblock_mask(key, (4, 8), 0.9, 3)
