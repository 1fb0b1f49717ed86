"""Steps of a plan, without the loop around them."""

import jax


def run(plan, steps):
    """The state and the metrics after each of some steps."""
    state, metrics = plan.create(), []
    batches = plan.task.train_batches(start_step=0, rows=slice(None))
    for _, batch in zip(range(steps), batches, strict=False):
        batch.pop("skipped")
        state, new = plan.train_step(state, plan.put_batch(batch), plan.key)
        metrics.append(jax.device_get(new))
    return state, metrics
