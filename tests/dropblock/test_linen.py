"""The Linen module: used like linen.Dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import errors
from flax import linen as nn

from dropblock import dropblock
from dropblock.linen import DropBlock

SHAPE = (3, 8, 8, 4)


@pytest.fixture
def x():
    return jax.random.normal(jax.random.key(17), SHAPE)


class Net(nn.Module):
    deterministic: bool | None = None

    @nn.compact
    def __call__(self, x, deterministic=None):
        first = DropBlock(0.7, 3, self.deterministic, normalize=None)(x, deterministic)
        second = DropBlock(0.7, 3, self.deterministic, normalize=None)(x, deterministic)
        return first, second


def apply(module, key, *args, **kwargs):
    return module.apply({}, *args, **kwargs, rngs={"dropblock": key})


def test_a_key_in_the_call_gives_what_the_function_gives(key, x):
    options = {"shared_mask": True, "gamma_rule": "exact", "normalize": "sample"}
    layer = DropBlock(0.7, (3, 2), deterministic=False, **options)
    expected = dropblock(key, x, 0.7, (3, 2), **options)
    np.testing.assert_array_equal(layer.apply({}, x, rng=key), expected)


def test_default_options_are_those_of_the_function(key, x):
    layer = DropBlock(0.7, 3, deterministic=False)
    np.testing.assert_array_equal(layer.apply({}, x, rng=key), dropblock(key, x, 0.7, 3))


def test_rng_collection(key, x):
    layer = DropBlock(0.7, 3, deterministic=False)
    y = apply(layer, key, x)
    assert (y == 0).any()
    np.testing.assert_array_equal(apply(layer, key, x), y)
    assert (apply(layer, jax.random.key(1), x) != y).any()
    with pytest.raises(errors.InvalidRngError, match="dropblock"):
        layer.apply({}, x)


def test_layers_draw_apart_and_hold_no_variables(key, x):
    first, second = apply(Net(deterministic=False), key, x)
    assert (first != second).any()
    variables = Net(deterministic=False).init({"params": key, "dropblock": key}, x)
    assert not jax.tree.leaves(variables)


def test_deterministic_as_attribute_or_argument(key, x):
    for y in Net(deterministic=True).apply({}, x) + Net().apply({}, x, deterministic=True):
        np.testing.assert_array_equal(y, x)
    # Monte-Carlo DropBlock at inference.
    by_attribute = apply(Net(deterministic=False), key, x)
    by_argument = apply(Net(), key, x, deterministic=False)
    for one, other in zip(by_attribute, by_argument, strict=True):
        assert (one == 0).any()
        np.testing.assert_array_equal(one, other)
    for module, arguments in ((Net(), {}), (Net(deterministic=False), {"deterministic": True})):
        with pytest.raises(ValueError, match="deterministic"):
            apply(module, key, x, **arguments)


def test_it_works_in_sequential(key, x):
    layers = [nn.Conv(5, (3, 3)), DropBlock(0.7, 3, deterministic=False, normalize=None), nn.relu]
    model = nn.Sequential(layers)
    y, variables = model.init_with_output({"params": key, "dropblock": key}, x)
    assert y.shape == (3, 8, 8, 5)
    assert set(variables["params"]) == {"layers_0"}
    trained = model.apply(variables, x, rngs={"dropblock": key})
    bound = nn.relu(nn.Conv(5, (3, 3)).apply({"params": variables["params"]["layers_0"]}, x))
    np.testing.assert_allclose(trained, jnp.where(trained > 0, bound, 0), rtol=1e-6)
    assert (trained != bound).any()


def test_keep_prob_in_the_call_wins_and_a_schedule_never_recompiles(key, x):
    layer = DropBlock(0.7, 3, deterministic=False, normalize=None)
    traces = []

    @jax.jit
    def call(keep_prob):
        traces.append(keep_prob)
        return apply(layer, key, x, keep_prob=keep_prob)

    dropped = [int((call(keep_prob) == 0).sum()) for keep_prob in (1.0, 0.9, 0.5)]
    assert dropped[0] == 0 < dropped[1] < dropped[2]
    assert len(traces) == 1


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"keep_prob": 1.5}, ValueError, r"keep_prob .*got 1\.5"),
        ({"block_size": 0}, ValueError, "block_size .*got 0"),
        ({"block_size": 3.5}, TypeError, r"block_size .*got 3\.5"),
        ({"gamma_rule": "rate"}, ValueError, "gamma_rule .*got 'rate'"),
        ({"normalize": "layer"}, ValueError, "normalize .*got 'layer'"),
    ],
)
def test_mistakes_are_found(key, x, arguments, error, message):
    layer = DropBlock(**{"keep_prob": 0.9, "block_size": 7, "deterministic": False} | arguments)
    with pytest.raises(error, match=message):
        apply(layer, key, x)
