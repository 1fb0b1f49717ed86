"""Learning rate and optimizer, from optax's parts."""

import jax.numpy as jnp
import optax

KINDS = ("step", "cosine", "exponential", "constant")


def learning_rate_schedule(schedule, *, batch_size: int, steps_per_epoch: int, total_steps: int):
    """Linear warm-up from 0, then the schedule's kind; everything counts from step 0.

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
        rising = peak * jnp.asarray(step, jnp.float32) / max(warmup, 1)
        return jnp.where(step < warmup, rising, decay(step)).astype(jnp.float32)

    return learning_rate


def _after(start, schedule):
    return lambda step: schedule(jnp.maximum(step - start, 0))


def make_optimizer(optimizer, decayed) -> optax.GradientTransformation:
    """SGD with momentum; weight decay is an L2 term in the gradient, as in the authors' loss.

    Its updates are for a learning rate of 1: the step multiplies them by the schedule's at
    `state.step`, so that the rate it logs is the one that acts (optax would count for itself).

    Args:
      optimizer: `config.optimizer`.
      decayed: pytree of bool like the parameters: which of them decay.

    Raises:
      ValueError: a field out of range.
    """
    if not 0.0 <= optimizer.momentum < 1.0:
        raise ValueError(f"optimizer.momentum must be in [0, 1), got {optimizer.momentum}")
    if optimizer.weight_decay < 0:
        raise ValueError(
            f"optimizer.weight_decay must not be negative, got {optimizer.weight_decay}"
        )
    clip = optimizer.clip_norm
    if clip is not None and clip <= 0:
        raise ValueError(f"optimizer.clip_norm must be positive or None, got {clip}")
    return optax.chain(
        # The L2 term is part of the loss, so it is part of what is clipped.
        optax.add_decayed_weights(optimizer.weight_decay, decayed),
        optax.identity() if clip is None else optax.clip_by_global_norm(clip),
        optax.sgd(1.0, optimizer.momentum, optimizer.nesterov),
    )
