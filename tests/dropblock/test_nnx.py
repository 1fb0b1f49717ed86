"""The NNX module: used like nnx.Dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dropblock import dropblock
from dropblock.nnx import DropBlock

SHAPE = (3, 8, 8, 4)


@pytest.fixture
def x():
    return jax.random.normal(jax.random.key(17), SHAPE)


class Net(nnx.Module):
    """Two DropBlocks from one `rngs`."""

    def __init__(self, rngs):
        self.first = DropBlock(0.7, 3, normalize=None, rngs=rngs)
        self.second = DropBlock(0.7, 3, normalize=None, rngs=rngs)

    def __call__(self, x):
        return self.first(x), self.second(x)


def test_a_key_in_the_call_gives_what_the_function_gives(key, x):
    options = {"shared_mask": True, "gamma_rule": "exact", "normalize": "sample"}
    layer = DropBlock(0.7, (3, 2), **options)
    np.testing.assert_array_equal(layer(x, rngs=key), dropblock(key, x, 0.7, (3, 2), **options))


def test_default_options_are_those_of_the_function(key, x):
    np.testing.assert_array_equal(DropBlock(0.7, 3)(x, rngs=key), dropblock(key, x, 0.7, 3))


def test_sources_of_randomness(x):
    layer = DropBlock(0.7, 3)
    from_rngs = layer(x, rngs=nnx.Rngs(dropblock=5))
    np.testing.assert_array_equal(layer(x, rngs=nnx.Rngs(dropblock=5).dropblock), from_rngs)
    np.testing.assert_array_equal(layer(x, rngs=nnx.Rngs(dropblock=5).dropblock()), from_rngs)
    # The stream named dropblock, and the default stream where there is none of that name.
    np.testing.assert_array_equal(layer(x, rngs=nnx.Rngs(0, dropblock=5)), from_rngs)
    assert (layer(x, rngs=nnx.Rngs(5)) == 0).any()
    # What the call says wins over the constructor.
    other = DropBlock(0.7, 3, rngs=nnx.Rngs(dropblock=6))
    np.testing.assert_array_equal(other(x, rngs=nnx.Rngs(dropblock=5)), from_rngs)
    # A stream will do for the constructor as well as nnx.Rngs.
    by_stream = DropBlock(0.7, 3, rngs=nnx.Rngs(dropblock=6).dropblock)
    np.testing.assert_array_equal(by_stream(x), DropBlock(0.7, 3, rngs=nnx.Rngs(dropblock=6))(x))


def test_calls_and_layers_draw_anew(x):
    net = Net(nnx.Rngs(dropblock=0))
    draws = [np.asarray(y).tobytes() for _ in range(3) for y in net(x)]
    assert len(set(draws)) == 6


def test_eval_and_train_switch_it(x):
    net = Net(nnx.Rngs(dropblock=0))
    net.eval()
    for y in net(x):
        np.testing.assert_array_equal(y, x)
    net.train()
    for y in net(x):
        assert (y == 0).any()


def test_view_switches_a_view_and_leaves_the_model_alone(x):
    net = Net(nnx.Rngs(dropblock=0))
    for y in nnx.view(net, deterministic=True)(x):
        np.testing.assert_array_equal(y, x)
    for y in net(x):
        assert (y == 0).any()
    net.eval()
    for y in nnx.view(net, deterministic=False)(x):
        assert (y == 0).any()


def test_deterministic_in_the_call_wins(x):
    layer = DropBlock(0.7, 3, rngs=nnx.Rngs(0))
    assert layer(x, deterministic=True) is x
    layer.eval()
    assert (layer(x, deterministic=False) == 0).any()


def test_deterministic_needs_no_source_of_randomness(x):
    assert DropBlock(0.7, 3, deterministic=True)(x) is x


def test_it_works_in_sequential(x):
    model = nnx.Sequential(
        nnx.Conv(4, 5, (3, 3), rngs=nnx.Rngs(0)),
        DropBlock(0.7, 3, normalize=None, rngs=nnx.Rngs(dropblock=1)),
        nnx.relu,
        DropBlock(0.7, 3, rngs=nnx.Rngs(dropblock=2)),
    )
    trained = model(x)
    assert trained.shape == (3, 8, 8, 5)
    model.eval()
    np.testing.assert_array_equal(model(x), nnx.relu(model.layers[0](x)))
    assert (trained != model(x)).any()


def test_keep_prob_in_the_call_wins_and_a_schedule_never_recompiles(key, x):
    layer = DropBlock(0.7, 3, normalize=None)
    traces = []

    @jax.jit
    def call(keep_prob):
        traces.append(keep_prob)
        return layer(x, keep_prob=keep_prob, rngs=key)

    dropped = [int((call(keep_prob) == 0).sum()) for keep_prob in (1.0, 0.9, 0.5)]
    assert dropped[0] == 0 < dropped[1] < dropped[2]
    assert len(traces) == 1
    assert layer.keep_prob == 0.7


def test_split_merge_and_jit(x):
    net = Net(nnx.Rngs(dropblock=0))
    graphdef, state = nnx.split(net)

    @jax.jit
    def call(state):
        model = nnx.merge(graphdef, state, copy=True)
        outputs = model(x)
        return outputs, nnx.state(model)

    first, state_after = call(state)
    again, _ = call(state)
    later, _ = call(state_after)
    expected = net(x)
    for n in range(2):
        np.testing.assert_array_equal(first[n], expected[n])
        np.testing.assert_array_equal(again[n], first[n])  # the state was not changed in place
        assert (later[n] != first[n]).any()


def test_nnx_jit_and_grad(x):
    net = Net(nnx.Rngs(dropblock=0))
    call = nnx.jit(lambda net, x: net(x))
    assert (call(net, x)[0] != call(net, x)[0]).any()
    layer = DropBlock(0.7, 3, normalize=None)
    gradient = jax.grad(lambda x: layer(x, rngs=jax.random.key(0)).sum())(x)
    np.testing.assert_array_equal(gradient, layer(jnp.ones(SHAPE), rngs=jax.random.key(0)))


def test_without_randomness_it_has_no_state():
    # So that a checkpoint of the model holds nothing of it.
    assert not jax.tree.leaves(nnx.state(DropBlock(0.7, 3)))


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
def test_the_constructor_finds_mistakes(arguments, error, message):
    with pytest.raises(error, match=message):
        DropBlock(**{"keep_prob": 0.9, "block_size": 7} | arguments)


def test_it_cannot_be_silently_off(x):
    with pytest.raises(ValueError, match="rng must be a JAX key, got None"):
        DropBlock(0.7, 3)(x)
    with pytest.raises(ValueError, match="deterministic must be given"):
        DropBlock(0.7, 3, deterministic=None, rngs=nnx.Rngs(0))(x)
    with pytest.raises((AttributeError, KeyError), match="dropblock"):
        DropBlock(0.7, 3)(x, rngs=nnx.Rngs(params=0))
