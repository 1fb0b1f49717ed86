"""BatchNorm over groups of examples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from models.layers import Layers, Norm
from training import sharding

X = jax.random.normal(jax.random.key(0), (16, 5, 4, 3)) * 3 + 1


def batch_norm(group_size, dtype=jnp.float32):
    norm = Norm(momentum=0.9, epsilon=1e-3, group_size=group_size)
    return Layers(norm, dtype, "cpu", nnx.Rngs(params=0)).batch_norm(3)


def train(norm, x, dy):
    """The output, the running mean and variance, and x's gradient against dy."""
    graphdef, state = nnx.split(norm)

    @jax.jit
    def run(x):
        norm = nnx.merge(graphdef, state, copy=True)
        y = norm(x, use_running_average=False)
        return y, (norm.mean[...], norm.var[...])

    y, pull, (mean, var) = jax.vjp(run, x, has_aux=True)
    return y, mean, var, pull(dy)[0]


def test_each_group_is_normalised_as_if_it_were_alone():
    dy = jax.random.normal(jax.random.key(1), X.shape)
    y, mean, var, dx = train(batch_norm(4), X, dy)
    alone = [train(batch_norm(0), X[n : n + 4], dy[n : n + 4]) for n in range(0, 16, 4)]
    ys, means, variances, dxs = map(np.stack, zip(*alone, strict=True))
    np.testing.assert_allclose(y, ys.reshape(X.shape), atol=1e-6)
    np.testing.assert_allclose(dx, dxs.reshape(X.shape), atol=1e-6)
    np.testing.assert_allclose(mean, means.mean(0), rtol=1e-6)
    np.testing.assert_allclose(var, variances.mean(0), rtol=1e-6)
    assert abs(y - train(batch_norm(0), X, dy)[0]).max() > 0.1


@pytest.mark.parametrize("group_size", [16, 32])
def test_a_group_of_all_or_more_is_none(group_size):
    grouped, whole = train(batch_norm(group_size), X, X), train(batch_norm(0), X, X)
    for one, other in zip(grouped, whole, strict=True):
        np.testing.assert_array_equal(one, other)


def test_evaluation_knows_no_groups():
    norm = batch_norm(4, jnp.bfloat16)
    norm.mean[...] += 2.0
    y = norm(X[:7], use_running_average=True)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y, (X[:7] - 2) / np.sqrt(1.001), rtol=0.02, atol=0.02)


def test_groups_that_do_not_fill_a_batch_are_refused():
    with pytest.raises(ValueError, match="batch of 16 cannot be cut into groups of 5"):
        batch_norm(5)(X, use_running_average=False)


@pytest.mark.parametrize(("group_size", "talks"), [(0, True), (4, True), (2, False), (1, False)])
def test_a_group_on_one_device_needs_no_other(group_size, talks):
    mesh = sharding.make_mesh(jax.devices())
    by_batch = jax.sharding.NamedSharding(mesh, P("data"))
    graphdef, state = nnx.split(batch_norm(group_size))

    def output(x):
        return nnx.merge(graphdef, state, copy=True)(x, use_running_average=False)

    run = jax.jit(output, in_shardings=by_batch)
    text = run.lower(X).compile().as_text()
    assert text is not None
    assert ("all-reduce" in text or "all-gather" in text) == talks


@pytest.mark.parametrize("group_size", [0, 4])
def test_norms_of_maps_that_are_alike_are_traced_once(group_size, monkeypatch):
    normalize, traced = nnx.BatchNorm.__call__, []

    def counted(*args):
        traced.append(args)
        return normalize(*args)

    monkeypatch.setattr(nnx.BatchNorm, "__call__", counted)

    def of_three(x):
        for _ in range(3):
            x = batch_norm(group_size)(x, use_running_average=False)
        return x

    jax.make_jaxpr(of_three)(jnp.zeros((8, 2, 7, 3)))  # a shape of no other test
    assert len(traced) == 1
