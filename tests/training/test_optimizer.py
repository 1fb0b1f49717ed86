"""Learning rates and updates against hand-computed values."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from configs import defaults
from training.optimizer import decays, learning_rate_schedule, make_optimizer


def schedule(total=1000, per_epoch=10, batch=256, **fields):
    config = defaults.get_config()
    config.schedule.update({"learning_rate": 0.1, "reference_batch": 256, "warmup_epochs": 5.0})
    config.schedule.update(fields)
    return learning_rate_schedule(
        config.schedule, batch_size=batch, steps_per_epoch=per_epoch, total_steps=total
    )


def at(rate, steps):
    return [float(rate(jnp.int32(step))) for step in steps]


def test_the_papers_schedule_on_imagenet():
    rate = schedule(270 * 1251, 1251, 1024, boundaries=(125.0, 200.0, 250.0))
    epochs = [0, 2.5, 5, 124, 125, 126, 199, 200, 201, 249, 250, 251, 269]
    expected = [0, 0.2, 0.4, 0.4, 0.04, 0.04, 0.04, 0.004, 0.004, 0.004, 0.0004, 0.0004, 0.0004]
    np.testing.assert_allclose(at(rate, [round(e * 1251) for e in epochs]), expected, rtol=1e-3)
    # The drop is at its step, not one beside it.
    np.testing.assert_allclose(at(rate, [125 * 1251 - 1, 125 * 1251]), [0.4, 0.04], rtol=1e-5)


def test_warm_up_is_linear_from_zero():
    rates = at(schedule(kind="constant"), range(51))
    np.testing.assert_allclose(rates, np.arange(51) / 500, rtol=1e-6)
    np.testing.assert_allclose(at(schedule(kind="constant", warmup_epochs=0.0), [0]), [0.1])


def test_warm_up_may_begin_on_the_way():
    rate = schedule(kind="constant", warmup_start=0.5)
    np.testing.assert_allclose(at(rate, [0, 25, 50]), [0.05, 0.075, 0.1], rtol=1e-6)
    assert at(schedule(kind="constant", warmup_start=1.0), [0]) == [pytest.approx(0.1)]


def test_schedules_of_single_steps():
    fields = {"warmup_epochs": 0.0, "per_epoch": 1}
    cosine = schedule(total=2, kind="cosine", final_fraction=0.1, **fields)
    np.testing.assert_allclose(at(cosine, range(3)), [0.1, 0.055, 0.01], rtol=1e-6)
    cosine = schedule(total=1, kind="cosine", final_fraction=0.1, **fields)
    np.testing.assert_allclose(at(cosine, range(2)), [0.1, 0.01], rtol=1e-6)
    stairs = schedule(kind="exponential", factor=0.5, decay_epochs=1.0, **fields)
    np.testing.assert_allclose(at(stairs, range(3)), [0.1, 0.05, 0.025], rtol=1e-6)


def test_cosine_ends_at_its_fraction():
    rate = schedule(kind="cosine", final_fraction=0.1)
    middle = 0.1 * (0.1 + 0.9 * 0.5)
    np.testing.assert_allclose(at(rate, [50, 525, 1000]), [0.1, middle, 0.01], rtol=1e-5)


def test_exponential_is_a_staircase_with_a_floor():
    rate = schedule(kind="exponential", factor=0.5, decay_epochs=10.0, final_fraction=0.2)
    np.testing.assert_allclose(at(rate, [99, 100, 199, 200, 900]), [0.1, 0.05, 0.05, 0.025, 0.02])


def test_a_run_shorter_than_its_warm_up_is_allowed():
    assert at(schedule(total=10, kind="cosine"), [5])[0] == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "linear"}, "schedule.kind.*'linear'"),
        ({"boundaries": (30.0, 20.0)}, "increase"),
        ({"factor": 0.0}, "schedule.factor.*0.0"),
        ({"kind": "exponential", "factor": 0.0}, "schedule.factor.*0.0"),
        ({"kind": "exponential", "decay_epochs": 0.0}, "schedule.decay_epochs.*0.0"),
        ({"warmup_start": 1.5}, "schedule.warmup_start.*1.5"),
        ({"reference_batch": 0}, "schedule.reference_batch.*0"),
        ({"learning_rate": -0.1}, "schedule.learning_rate.*-0.1"),
        ({"warmup_epochs": math.inf}, "schedule.warmup_epochs must be finite, got inf"),
        ({"boundaries": (30.0, math.nan)}, "schedule.boundaries must be finite"),
    ],
)
def test_wrong_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        schedule(**fields)


@pytest.mark.parametrize("nesterov", [True, False])
def test_sgd_is_the_authors(nesterov):
    config = defaults.get_config().optimizer
    config.update({"momentum": 0.9, "nesterov": nesterov, "weight_decay": 0.01})
    rates = [0.1, 0.2, 0.3]
    params = {"kernel": jnp.array([1.0, -2.0]), "scale": jnp.array([3.0])}
    optimizer = make_optimizer(config, params)
    state = optimizer(0.0).init(params)
    literal, velocity = {k: np.array(v) for k, v in params.items()}, {"kernel": 0, "scale": 0}
    for step, rate in enumerate(rates):
        grads = {"kernel": jnp.array([0.5, 0.1 * step]), "scale": jnp.array([1.0])}
        updates, state = optimizer(rate).update(grads, state, params)
        params = optax.apply_updates(params, updates)
        for name in literal:
            # TensorFlow's momentum: the L2 term is part of the gradient, the rate outside it.
            grad = np.array(grads[name]) + (0.01 * literal[name] if name == "kernel" else 0)
            velocity[name] = 0.9 * velocity[name] + grad
            literal[name] = literal[name] - rate * (
                grad + 0.9 * velocity[name] if nesterov else velocity[name]
            )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), params, literal)


def test_clipping_bounds_the_gradient_as_a_whole():
    config = defaults.get_config().optimizer
    config.update({"momentum": 0.0, "nesterov": False, "weight_decay": 0.0, "clip_norm": 1.0})
    params = {"kernel": jnp.zeros(2)}
    tx = make_optimizer(config, params)(1.0)
    updates, _ = tx.update({"kernel": jnp.array([3.0, 4.0])}, tx.init(params), params)
    np.testing.assert_allclose(updates["kernel"], [-0.6, -0.8], rtol=1e-6)


@pytest.mark.parametrize("epsilon", [1.0, 1e-3])
def test_rmsprop_is_tensorflows(epsilon):
    """tf.train.RMSPropOptimizer's rule, written out, over rates that change."""
    config = defaults.get_config().optimizer
    config.update({"name": "rmsprop", "momentum": 0.9, "nesterov": False, "weight_decay": 0.01})
    config.update({"rms_decay": 0.8, "rms_epsilon": epsilon, "decay_biases": False})
    params = {
        "kernel": jnp.array([1.0, -2.0]),
        "bias": jnp.array([0.5]),
        "scale": jnp.array([3.0]),
    }
    optimizer = make_optimizer(config, params)
    state = optimizer(0.0).init(params)
    variables = {name: np.array(value, np.float64) for name, value in params.items()}
    mean_square = {name: np.ones_like(value) for name, value in variables.items()}
    momentum = {name: np.zeros_like(value) for name, value in variables.items()}
    for step, rate in enumerate([0.1, 0.4, 0.2, 0.05]):
        grads = {
            "kernel": jnp.array([0.5, 3.0 * step]),
            "bias": jnp.array([-0.2]),
            "scale": jnp.array([1.0 - step]),
        }
        updates, state = optimizer(rate).update(grads, state, params)
        params = optax.apply_updates(params, updates)
        for name in variables:
            grad = np.array(grads[name]) + (0.01 * variables[name] if name == "kernel" else 0)
            mean_square[name] += (1 - 0.8) * (grad**2 - mean_square[name])
            momentum[name] *= 0.9
            momentum[name] += rate * grad / np.sqrt(mean_square[name] + epsilon)
            variables[name] -= momentum[name]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), params, variables)


@pytest.mark.parametrize(
    "fields",
    [
        {"momentum": 1.0},
        {"weight_decay": -1.0},
        {"name": "adam"},
        {"rms_decay": 1.0},
        {"rms_epsilon": 0.0},
        {"clip_norm": 0.0},
    ],
)
def test_wrong_optimizers_are_refused(fields):
    config = defaults.get_config().optimizer
    config.update(fields)
    with pytest.raises(ValueError, match=next(iter(fields))):
        make_optimizer(config, {})


def test_weight_decay_goes_by_names():
    layer = {"kernel": 0, "bias": 0}
    params = {"conv": layer, "group": {"norm": {"scale": 0, "bias": 0}, "dense": layer}}
    expected = {"kernel": True, "bias": True}
    spared = {"scale": False, "bias": False}
    assert decays(params, biases=True) == {
        "conv": expected,
        "group": {"norm": spared, "dense": expected},
    }
    of_kernels = {"kernel": True, "bias": False}
    assert decays(params, biases=False) == {
        "conv": of_kernels,
        "group": {"norm": spared, "dense": of_kernels},
    }
    # A layer of a new kind must not decay, or not, in silence.
    with pytest.raises(ValueError, match="no rule of weight decay for parameter head.gain"):
        decays({"head": {"gain": 0}}, biases=True)


def test_weight_decay_spares_every_normalisation_of_flax():
    class Model(nnx.Module):
        def __init__(self, rngs):
            norms = (nnx.LayerNorm, nnx.RMSNorm, nnx.BatchNorm, nnx.InstanceNorm)
            self.norms = nnx.List([norm(4, rngs=rngs) for norm in norms])
            self.dense = nnx.Linear(4, 4, rngs=rngs)

    params = nnx.to_pure_dict(nnx.state(Model(nnx.Rngs(0)), nnx.Param))
    found = decays(params, biases=True)
    assert not any(jax.tree.leaves(found["norms"])) and all(jax.tree.leaves(found["dense"]))
