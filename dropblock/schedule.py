"""keep_prob as a pure function of the training step."""

import jax.numpy as jnp

from dropblock import checks

KINDS = ("linear", "constant")


def keep_prob_schedule(target, num_steps, kind="linear", start=1.0):
    """Scheduled DropBlock: keep_prob falls from `start` to `target` over training.

    A pure function of the step, so it needs no state, never recompiles a jitted step and is the
    same after a restart.

    Args:
      target: keep_prob at step `num_steps` and later, in [0, 1].
      num_steps: length of the training run in steps.
      kind: "linear" (the paper's), or "constant", which is `target` at every step.
      start: keep_prob at step 0, in [0, 1].

    Returns:
      A function `step -> keep_prob`: a float for a Python int, float32 for an array.

    Raises:
      ValueError: an argument out of range.

    Source: section 3.1 of the paper, "Scheduled DropBlock"; docs/paper.md section 2.
    """
    checks.probability("target", target)
    checks.probability("start", start)
    checks.choice("kind", kind, KINDS)
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")

    def schedule(step):
        if checks.is_number(step):
            progress = min(max(step / num_steps, 0.0), 1.0)
        else:
            progress = jnp.clip(jnp.asarray(step, jnp.float32) / num_steps, 0.0, 1.0)
        if kind == "constant":
            return target + 0.0 * progress
        # In this form both ends are met exactly.
        return (1.0 - progress) * start + progress * target

    return schedule
