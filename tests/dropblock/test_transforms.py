"""jit, grad, vmap, scan, checkpoint and many devices: the op under each is the op."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from dropblock import dropblock, dropblock_mask, dropout

pytestmark = pytest.mark.usefixtures("form")

NORMALIZE = ("batch", "sample", "map", None)
SHAPE = (8, 6, 7, 4)


@pytest.fixture
def x():
    return jax.random.normal(jax.random.key(17), SHAPE)


def drop(key, x, keep_prob=0.7, **options):
    return dropblock(key, x, keep_prob, 3, **options)


def mesh_of(devices, *names, shape=(-1,)):
    return Mesh(np.array(jax.devices()[:devices]).reshape(shape), names)


# Compilation --------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["paper", "exact"])
def test_a_schedule_never_recompiles(key, x, rule):
    traces = []

    @jax.jit
    def step(key, x, keep_prob):
        traces.append(keep_prob)
        return drop(key, x, keep_prob, gamma_rule=rule)

    for keep_prob in np.linspace(1, 0, 6):
        y = step(key, x, float(keep_prob))
        assert jnp.isfinite(y).all()
    assert len(traces) == step._cache_size() == 1


def test_jit_changes_nothing(key, x):
    np.testing.assert_allclose(drop(key, x), jax.jit(drop)(key, x), rtol=1e-6)


def test_scan_draws_anew_at_every_step(key, x):
    @jax.jit
    def masks(key):
        def step(carry, n):
            return carry, drop(jax.random.fold_in(key, n), jnp.ones(SHAPE), normalize=None)

        return jax.lax.scan(step, None, jnp.arange(3))[1]

    scanned = masks(key)
    for n in range(3):
        mask = drop(jax.random.fold_in(key, n), jnp.ones(SHAPE), normalize=None)
        np.testing.assert_array_equal(scanned[n], mask)
    assert len({np.asarray(mask).tobytes() for mask in scanned}) == 3


# Derivatives --------------------------------------------------------------------------------


@pytest.mark.parametrize("normalize", NORMALIZE)
def test_derivatives_are_those_of_a_constant_factor(key, x, normalize):
    op = functools.partial(drop, key, normalize=normalize)

    @jax.jit
    def everything(x, tangent):
        def f(x):
            return jnp.sum(jnp.sin(op(x)))

        gradient = jax.grad(f)
        return {
            "factor": op(jnp.ones_like(x)),
            "jvp": jax.jvp(op, (x,), (tangent,)),
            "grad": gradient(x),
            "grad of grad": jax.grad(lambda x: jnp.vdot(gradient(x), tangent))(x),
            "jvp of grad": jax.jvp(gradient, (x,), (tangent,))[1],
        }

    tangent = jax.random.normal(jax.random.key(18), x.shape)
    out = everything(x, tangent)
    factor = out["factor"]  # mask * scale, since it does not depend on x
    assert {0.0} < set(np.unique(factor))
    close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-6)
    close(out["jvp"][0], x * factor)
    close(out["jvp"][1], tangent * factor)
    close(out["grad"], np.cos(x * factor) * factor)
    second = -np.sin(x * factor) * factor**2 * tangent
    close(out["grad of grad"], second)
    close(out["jvp of grad"], second)


def test_gradient_in_half_precision_is_in_half_precision(key, x):
    x = x.astype(jnp.bfloat16)
    y, pull = jax.vjp(functools.partial(drop, key), x)
    (gradient,) = pull(jnp.ones_like(y))
    assert gradient.dtype == jnp.bfloat16
    np.testing.assert_array_equal(gradient == 0, y == 0)


@pytest.mark.parametrize("rule", ["paper", "exact"])
def test_gradient_with_respect_to_keep_prob_is_zero_and_not_an_error(key, x, rule):
    def loss(keep_prob):
        return drop(key, x, keep_prob, gamma_rule=rule).sum()

    assert jax.jit(jax.grad(loss))(0.7) == 0


@pytest.mark.parametrize("normalize", NORMALIZE)
@pytest.mark.parametrize("side", [8, 40])
def test_backward_pass_keeps_a_bit_for_each_element(optimised_jit, key, normalize, side):
    # Other implementations keep a mask, often in float32: the layer's activations a second time.
    x = jnp.ones((8, side, side, 4))
    # A row of 8 cells is a byte, one of 40 two words of 32 bits.
    mask = {8: 1, 40: 8}[side] * side * 8 * 4
    scales = {"batch": 1, "sample": 8, "map": 8 * 4, None: 0}[normalize] * 4

    def pullback(key, x):
        return jax.vjp(functools.partial(drop, key, normalize=normalize), x)[1]

    kept = jax.tree.leaves(optimised_jit(pullback)(key, x))
    assert sum(leaf.nbytes for leaf in kept) <= mask + scales
    # And what XLA makes of it: the pullback is all that is put out.
    analysis = optimised_jit(pullback).lower(key, x).compile().memory_analysis()
    assert 0 < analysis.output_size_in_bytes <= mask + scales + 16 * len(kept)  # and pointers


def test_a_scan_over_layers_keeps_words_alone(key, x):
    # What it keeps for its backward pass shows in its jaxpr with the layers in front.
    def loss(x):
        def layer(x, n):
            return drop(jax.random.fold_in(key, n), x), None

        return jax.lax.scan(layer, x, jnp.arange(5))[0].sum()

    jaxpr = str(jax.make_jaxpr(jax.grad(loss))(x))
    assert re.findall(r"\w+\[5,8,6,7,4\]", jaxpr) == []
    assert set(re.findall(r"(\w+)\[5,8,6,4\]", jaxpr)) == {"u8"}


def test_checkpoint_draws_the_same_mask_again(key, x):
    def loss(op, x):
        return jnp.sum(jnp.sin(op(jnp.tanh(op(x, key)), jax.random.fold_in(key, 1))))

    plain = jax.jit(jax.grad(functools.partial(loss, lambda x, key: drop(key, x))))(x)
    for policy in (None, jax.checkpoint_policies.dots_saveable):
        op = jax.checkpoint(lambda x, key: drop(key, x), policy=policy)
        again = jax.jit(jax.grad(functools.partial(loss, op)))(x)
        np.testing.assert_allclose(again, plain, rtol=1e-6, atol=1e-7)


# vmap ---------------------------------------------------------------------------------------


def test_vmap_over_keys_is_a_loop_over_keys(key, x):
    # Monte-Carlo DropBlock: many masks for one input.
    keys = jax.random.split(key, 4)
    many = jax.jit(jax.vmap(drop, in_axes=(0, None)))(keys, x)
    one = jax.jit(drop)
    np.testing.assert_allclose(many, [one(k, x) for k in keys], rtol=1e-6)
    assert len({np.asarray(y).tobytes() for y in many}) == 4


def test_vmap_over_keep_prob_is_a_loop_over_keep_prob(key, x):
    keep_probs = jnp.array([0.0, 0.5, 0.9, 1.0])
    exact = functools.partial(drop, gamma_rule="exact")
    many = jax.jit(jax.vmap(exact, in_axes=(None, None, 0)))(key, x, keep_probs)
    one = jax.jit(exact)
    np.testing.assert_allclose(many, [one(key, x, p) for p in keep_probs], rtol=1e-6)
    np.testing.assert_array_equal(many[0], 0)
    np.testing.assert_array_equal(many[3], x)


def test_vmap_of_grad_is_a_loop_of_grads(key, x):
    def gradient(key, x):
        return jax.grad(lambda x: jnp.sum(drop(key, x) ** 3))(x)

    keys = jax.random.split(key, 3)
    batch = jnp.stack([x, 2 * x, -x])
    many = jax.jit(jax.vmap(gradient))(keys, batch)
    one = jax.jit(gradient)
    for n in range(3):
        np.testing.assert_allclose(many[n], one(keys[n], batch[n]), rtol=1e-5, atol=1e-6)


# Devices ------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnames="spec")
def sharded(key, x, spec):
    del spec  # A compile for each, whatever jit makes of the sharding of x.
    return dropblock_mask(key, x.shape, 0.7, 3), [drop(key, x, normalize=n) for n in NORMALIZE]


@pytest.mark.parametrize(
    "devices, shape, spec",
    [
        (2, (2,), P("a")),
        (8, (8,), P("a")),
        (8, (2, 4), P("a", None, None, "b")),
    ],
)
def test_same_key_gives_the_same_mask_on_any_number_of_devices(key, x, devices, shape, spec):
    mask, outputs = sharded(key, x, None)
    mesh = mesh_of(devices, *"ab"[: len(shape)], shape=shape)
    spread = jax.device_put(x, NamedSharding(mesh, spec))
    assert len(spread.sharding.device_set) == devices
    replicated = jax.device_put(key, NamedSharding(mesh, P()))
    sharded_mask, sharded_outputs = sharded(replicated, spread, spec)
    np.testing.assert_array_equal(sharded_mask, mask)
    for y, sharded_y in zip(outputs, sharded_outputs, strict=True):
        np.testing.assert_allclose(sharded_y, y, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "backward",
    [pytest.param(False, id="forward", marks=pytest.mark.slow), pytest.param(True, id="both")],
)
@pytest.mark.parametrize("normalize", [*NORMALIZE, "dropout"])
def test_communication_of_a_sharded_batch(optimised_jit, key, backward, normalize):
    function = dropout if normalize == "dropout" else functools.partial(drop, normalize=normalize)
    sharding = NamedSharding(mesh_of(8, "data"), P("data"))
    x = jnp.ones((16, 14, 14, 64))

    def step(key, x, g, keep_prob):
        y, pull, kept = jax.vjp(
            lambda x: function(key, x, keep_prob, return_kept=True), x, has_aux=True
        )
        return (y, kept, pull(g)[0]) if backward else (y, kept)

    compiled = (
        optimised_jit(step, in_shardings=(None, sharding, sharding, None), out_shardings=sharding)
        .lower(key, x, x, 0.7)
        .compile()
        .as_text()
    )
    all_reduces = re.findall(r"= \(?(\S+?)\[([0-9,]*)\]\S* all-reduce", compiled)
    assert len(all_reduces) == (1 if normalize == "batch" else 0)
    assert all(set(shape) <= set("1,") for _, shape in all_reduces)  # a scalar, whatever its rank
    for other in ("all-gather", "all-to-all", "collective-permute", "reduce-scatter"):
        assert other not in compiled
    # Sharded, not repeated on every device: no array of the whole batch.
    assert not re.search(r"\[16,\d+,\d+", compiled)  # nothing is repeated on every device


def test_shard_map_with_a_keep_prob_for_each_shard(key):
    def local(key, x):
        index = jax.lax.axis_index("data")
        key, keep_prob = jax.random.fold_in(key, index), index.astype(jnp.float32)
        return drop(key, x, keep_prob, gamma_rule="exact", normalize=None)

    run = jax.shard_map(
        local, mesh=mesh_of(2, "data"), in_specs=(P(), P("data")), out_specs=P("data")
    )
    y = jax.jit(run)(key, jnp.ones(SHAPE))
    np.testing.assert_array_equal(y[:4], 0)
    np.testing.assert_array_equal(y[4:], 1)


def test_shard_map_needs_a_key_for_each_shard(key):
    mesh = mesh_of(8, "data")

    def masks(fold):
        def local(key, x):
            if fold:  # As the docstring of dropblock shows.
                key = jax.random.fold_in(key, jax.lax.axis_index("data"))
            return drop(key, x, normalize=None)

        run = jax.shard_map(local, mesh=mesh, in_specs=(P(), P("data")), out_specs=P("data"))
        return np.asarray(jax.jit(run)(key, jnp.ones((16, 6, 7, 4))))

    assert len({example.tobytes() for example in masks(fold=True)}) == 16
    # Positions are local: without folding each shard of two examples draws the same.
    assert len({example.tobytes() for example in masks(fold=False)}) == 2
