"""What is taken and what is refused, at the edge between them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropblock import checks


@pytest.mark.parametrize("value", [0, 1, 0.0, 1.0, np.float32(0.5), np.int64(1)])
def test_numbers_that_are_a_probability(value):
    assert checks.is_number(value)
    checks.probability("p", value)


@pytest.mark.parametrize("value", [-1e-9, 1 + 1e-9, -1, 2, float("nan"), np.float64(1.1)])
def test_numbers_that_are_no_probability(value):
    with pytest.raises(ValueError, match=r"p must be in \[0, 1\], got"):
        checks.probability("p", value)


def test_a_scalar_array_is_a_probability_whatever_its_value():
    checks.probability("p", jnp.float32(7.0))
    checks.probability("p", np.array(7.0))
    jax.jit(lambda p: checks.probability("p", p))(7.0)
    assert not checks.is_number(jnp.float32(0.5))


@pytest.mark.parametrize("value", [jnp.zeros(1), np.zeros((1, 1)), [0.5], "0.5", None])
def test_neither_a_number_nor_a_scalar_array(value):
    with pytest.raises(ValueError, match="p must be a number or a scalar array, got"):
        checks.probability("p", value)


def test_choices():
    checks.choice("kind", None, ("batch", None))
    with pytest.raises(ValueError, match="kind must be one of .*got 'map'"):
        checks.choice("kind", "map", ("batch", None))


def test_features_have_a_spatial_axis_and_a_floating_dtype():
    for shape in ((2, 5, 3), (2, 5, 5, 3), (2, 4, 5, 6, 3)):
        checks.features(jnp.zeros(shape, jnp.bfloat16))
    with pytest.raises(ValueError, match=r"spatial axis.*got \(2, 3\)"):
        checks.features(jnp.zeros((2, 3)))
    with pytest.raises(TypeError, match="floating dtype, got int32"):
        checks.features(jnp.zeros((2, 5, 3), jnp.int32))


def test_a_key_must_be_given():
    checks.key(jax.random.key(0))
    with pytest.raises(ValueError, match="rng must be a JAX key, got None"):
        checks.key(None)


@pytest.mark.parametrize(
    "value, spatial, sides",
    [
        (3, (7,), (3,)),
        (3, (7, 9), (3, 3)),
        (8, (7, 9), (7, 8)),
        (1, (1, 1), (1, 1)),
        ((1, 20), (7, 9), (1, 9)),
        ([2, 3, 4], (4, 4, 4), (2, 3, 4)),
        (np.int64(3), (7, 9), (3, 3)),
    ],
)
def test_sides_are_one_or_one_for_each_axis_and_fit_the_map(value, spatial, sides):
    assert checks.block_shape(value, spatial) == sides


@pytest.mark.parametrize(
    "value, spatial, message",
    [
        (0, (7, 7), "at least 1 .*got 0"),
        ((3, 0), (7, 7), r"at least 1 .*got \(3, 0\)"),
        ((), (7, 7), r"at least 1 .*got \(\)"),
        ((3,), (7, 7), r"each of the 2 spatial axes, got \(3,\)"),
        ((3, 3, 3), (7, 7), r"each of the 2 spatial axes, got \(3, 3, 3\)"),
        (3, (7, 0), r"not be empty, got spatial shape \(7, 0\)"),
    ],
)
def test_sides_that_are_refused(value, spatial, message):
    with pytest.raises(ValueError, match=message):
        checks.block_shape(value, spatial)


@pytest.mark.parametrize("value", [3.0, (3, 3.0), "3", None])
def test_sides_that_are_no_integers(value):
    with pytest.raises(TypeError, match="int or a tuple of ints, got"):
        checks.block_size(value)
