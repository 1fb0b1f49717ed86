"""Learning rate and optimizer, from optax's parts."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dropblock import checks

KINDS = ("step", "cosine", "exponential", "constant")
NAMES = ("sgd", "rmsprop")


def learning_rate_schedule(schedule, *, batch_size: int, steps_per_epoch: int, total_steps: int):
    """Linear warm-up, then the schedule's kind; everything counts from step 0.

    Args:
      schedule: `config.schedule`; durations in epochs.
      batch_size: global; the peak is `learning_rate * batch_size / reference_batch`.
      steps_per_epoch: to turn epochs into steps.
      total_steps: where cosine ends.

    Returns:
      A pure function `step -> learning rate`, float32.

    Raises:
      ValueError: a field out of range.
    """
    if schedule.kind not in KINDS:
        raise ValueError(f"schedule.kind must be one of {KINDS}, got {schedule.kind!r}")
    for name in set(schedule) - {"kind"}:
        if not np.isfinite(np.asarray(schedule[name], np.float64)).all():
            raise ValueError(f"schedule.{name} must be finite, got {schedule[name]}")
    positive = ["reference_batch"]
    if schedule.kind == "step":
        positive += ["factor"]
    if schedule.kind == "exponential":
        positive += ["factor", "decay_epochs"]
    for name in positive:
        if schedule[name] <= 0:
            raise ValueError(f"schedule.{name} must be positive, got {schedule[name]}")
    for name in ("learning_rate", "warmup_epochs"):
        if schedule[name] < 0:
            raise ValueError(f"schedule.{name} must not be negative, got {schedule[name]}")
    if not 0.0 <= schedule.warmup_start <= 1.0:
        raise ValueError(f"schedule.warmup_start must be in [0, 1], got {schedule.warmup_start}")
    boundaries = [round(epoch * steps_per_epoch) for epoch in schedule.boundaries]
    if schedule.kind == "step" and boundaries != sorted(set(boundaries)):
        raise ValueError(f"schedule.boundaries must increase, got {schedule.boundaries}")
    peak = schedule.learning_rate * batch_size / schedule.reference_batch
    warmup = round(schedule.warmup_epochs * steps_per_epoch)
    decay = {
        "constant": lambda: optax.constant_schedule(peak),
        "step": lambda: optax.piecewise_constant_schedule(
            peak, dict.fromkeys(boundaries, schedule.factor)
        ),
        "exponential": lambda: optax.exponential_decay(
            peak,
            transition_steps=max(round(schedule.decay_epochs * steps_per_epoch), 1),
            decay_rate=schedule.factor,
            staircase=True,
            end_value=schedule.final_fraction * peak,
        ),
        # A warm-up longer than the run is allowed: the run then ends inside it.
        "cosine": lambda: _after(
            warmup,
            optax.cosine_decay_schedule(
                peak, max(total_steps - warmup, 1), schedule.final_fraction
            ),
        ),
    }[schedule.kind]()

    def learning_rate(step):
        risen = jnp.asarray(step, jnp.float32) / max(warmup, 1)
        rising = peak * (schedule.warmup_start + (1.0 - schedule.warmup_start) * risen)
        return jnp.where(step < warmup, rising, decay(step)).astype(jnp.float32)

    return learning_rate


def _after(start, schedule):
    return lambda step: schedule(jnp.maximum(step - start, 0))


def make_optimizer(optimizer, params) -> Callable[..., optax.GradientTransformation]:
    """SGD with momentum, or RMSProp as TensorFlow's; weight decay is an L2 term in the gradient.

        sgd:      m <- momentum m + g            p <- p - rate m   (or, Nesterov, g + momentum m)
        rmsprop:  s <- decay s + (1 - decay) g^2, from s = 1
                  m <- momentum m + rate g / sqrt(s + epsilon)     p <- p - m

    Args:
      optimizer: `config.optimizer`.
      params: pytree of parameters, or their shapes; what they are called decides which of them
        decay, see `decays`.

    Returns:
      `learning_rate -> optax transformation`, whose state is the same for all rates: so the rate is
      the one of `state.step`, which is logged (optax would count for itself).

    Raises:
      ValueError: a field out of range, or a parameter of which `decays` knows nothing.

    Source: docs/paper.md sections 3.2 and 4.
    """
    checks.choice("optimizer.name", optimizer.name, NAMES)
    for name in ("momentum", "rms_decay"):
        if not 0.0 <= optimizer[name] < 1.0:
            raise ValueError(f"optimizer.{name} must be in [0, 1), got {optimizer[name]}")
    if optimizer.rms_epsilon <= 0:
        raise ValueError(f"optimizer.rms_epsilon must be positive, got {optimizer.rms_epsilon}")
    if optimizer.weight_decay < 0:
        raise ValueError(
            f"optimizer.weight_decay must not be negative, got {optimizer.weight_decay}"
        )
    clip = optimizer.clip_norm
    if clip is not None and clip <= 0:
        raise ValueError(f"optimizer.clip_norm must be positive or None, got {clip}")
    momentum = optax.trace(optimizer.momentum, optimizer.nesterov)
    rms = optax.scale_by_rms(
        optimizer.rms_decay, optimizer.rms_epsilon, initial_scale=1.0, eps_in_sqrt=True
    )
    before = (
        # The L2 term is part of the loss, so it is part of what is clipped.
        optax.add_decayed_weights(
            optimizer.weight_decay, decays(params, biases=optimizer.decay_biases)
        ),
        optax.identity() if clip is None else optax.clip_by_global_norm(clip),
    )

    def with_rate(learning_rate) -> optax.GradientTransformation:
        descend = optax.scale_by_learning_rate(learning_rate)
        # TensorFlow's momentum has the rate outside, its RMSProp inside.
        after = (momentum, descend) if optimizer.name == "sgd" else (rms, descend, momentum)
        return optax.chain(*before, optax.chain(*after))

    return with_rate


def decays(params, *, biases: bool) -> Any:
    """Which parameters weight decay acts on, by what they are called: a bool for each.

    Kernels decay; their biases where `biases` says so; scales, and the biases beside them, which
    are those of normalisation layers of any kind, do not.

    Raises:
      ValueError: a parameter of another name: it would decay, or not, in silence.
    """

    def of_parameter(path, _):
        *layer, name = (entry.key for entry in path)
        beside = params
        for key in layer:
            beside = beside[key]
        if name in ("kernel", "scale"):
            return name == "kernel"
        if name == "bias":
            return biases and "scale" not in beside
        raise ValueError(
            f"no rule of weight decay for parameter {'.'.join(map(str, [*layer, name]))}: give it "
            "one in training/optimizer.py"
        )

    return jax.tree_util.tree_map_with_path(of_parameter, params)
