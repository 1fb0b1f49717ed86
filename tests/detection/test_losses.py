"""RetinaNet's loss, by hand and in float64."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import eight_devices
from detection.losses import detection_loss
from detection.matching import Targets

loss_fn = jax.jit(detection_loss)


def literal(logits, codes, labels, targets, alpha=0.25, gamma=1.5, delta=0.1, weight=50.0):
    """The loss's formula, term by term, in float64."""
    focal = huber = 0.0
    for image in range(len(labels)):
        for anchor, label in enumerate(labels[image]):
            for index, logit in enumerate(logits[image, anchor].astype(np.float64)):
                p = 1 / (1 + np.exp(-logit))
                if index == label:
                    focal += -alpha * (1 - p) ** gamma * np.log(p)
                else:
                    focal += -(1 - alpha) * p**gamma * np.log(1 - p)
            if label >= 0:
                for e in np.abs(codes[image, anchor] - targets[image, anchor]):
                    huber += 0.5 * e**2 if e <= delta else delta * (e - 0.5 * delta)
    count = (labels >= 0).sum() + 1
    return focal / count + weight * huber / (4 * count)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_the_loss_is_the_literal_one(seed, objects):
    random = np.random.default_rng(seed)
    logits = 3 * random.standard_normal((2, 5, 3)).astype(np.float32)
    codes, targets = 0.2 * random.standard_normal((2, 2, 5, 4)).astype(np.float32)
    # With no objects at all now and then.
    labels = np.where(random.random((2, 5)) < objects, random.integers(0, 3, (2, 5)), -1)
    loss, parts = loss_fn(logits, codes, Targets(labels, targets))
    np.testing.assert_allclose(loss, literal(logits, codes, labels, targets), rtol=1e-4)
    np.testing.assert_allclose(loss, parts["class_loss"] + 50 * parts["box_loss"], rtol=1e-5)
    assert parts["positives"] == (labels >= 0).sum()


def test_by_hand():
    # One anchor of class 0, off by 0.05 and by 1 in two codes; one of background.
    codes = jnp.array([[[0.05, 1.0, 0.0, 0.0], [9.0, 9.0, 9.0, 9.0]]])
    targets = Targets(jnp.array([[0, -1]]), jnp.zeros((1, 2, 4)))
    _, parts = loss_fn(jnp.zeros((1, 2, 1)), codes, targets)
    focal = (0.25 + 0.75) * 0.5**1.5 * np.log(2)
    huber = 0.5 * 0.05**2 + 0.1 * (1 - 0.05)
    np.testing.assert_allclose(parts["class_loss"], focal / 2, rtol=1e-6)
    np.testing.assert_allclose(parts["box_loss"], huber / 8, rtol=1e-6)


def test_gradients_are_finite_without_objects_and_at_the_extremes():
    targets = Targets(jnp.full((1, 3), -1), jnp.zeros((1, 3, 4)))

    def loss(logits, codes):
        return detection_loss(logits, codes, targets)[0]

    logits = jnp.array([[[-100.0], [0.0], [100.0]]])
    gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))(logits, jnp.ones((1, 3, 4)))
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    assert gradients[0][0, 2] > 0  # the false alarm
    assert not gradients[1].any()  # background has no box


def test_one_device_and_eight_give_the_same_loss():
    random = np.random.default_rng(0)
    logits, codes = (random.standard_normal((16, 30, n)).astype(np.float32) for n in (3, 4))
    targets = Targets(random.integers(-1, 3, (16, 30)), np.zeros((16, 30, 4), np.float32))
    value_and_grad = jax.value_and_grad(lambda *args: detection_loss(*args)[0])
    loss, gradient = jax.jit(value_and_grad)(logits, codes, targets)
    of_eight, its_gradient = eight_devices.call(value_and_grad, logits, codes, targets)
    np.testing.assert_allclose(of_eight, loss, rtol=1e-6)
    np.testing.assert_allclose(its_gradient, gradient, rtol=1e-5, atol=1e-9)
