"""One step of training and one of evaluation, as pure functions."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from training import monte_carlo
from training import state as state_lib


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SiteSums:
    """What a drop site did, summed over examples; float32 scalars.

    Attributes:
      count: examples.
      dropped: their dropped fractions.
      expected_dropped: the expectation of `dropped`.
      seeds: the expected number of seeds.
    """

    count: jax.Array
    dropped: jax.Array
    expected_dropped: jax.Array
    seeds: jax.Array


def site_sums(reports) -> dict[str, SiteSums]:
    """Sums over the batch of a model's `sites`, `{site: report}`."""
    sums = {}
    for name, site in reports.items():
        count = jnp.float32(site.kept.shape[0])
        dropped = jnp.sum(1.0 - site.kept)
        sums[name] = SiteSums(count, dropped, count * (1.0 - site.expected), site.seeds)
    return sums


def make_loss(task, network):
    """Makes `(params, batch_stats, batch, key, keep_prob) -> (loss, (batch_stats, metrics))`.

    The network trains and drops with `key`. The metrics: `loss`, the task's `sums`, and `sites`,
    see `SiteSums`.
    """

    def loss(params, batch_stats, batch, key, keep_prob):
        out, new_stats = network.apply(
            params, batch_stats, task.inputs(batch), train=True, keep_prob=keep_prob, rng=key
        )
        value, sums = task.loss(out, batch)
        return value, (new_stats, {"loss": value, "sums": sums, "sites": site_sums(out["sites"])})

    return loss


def make_train_step(
    loss, optimizer, *, learning_rate_schedule, keep_prob_schedule, accumulate, ema_decay
):
    """Makes `(state, batch, key) -> (state, metrics)`.

    Args:
      loss: see `make_loss`.
      optimizer: `learning_rate -> optax transformation`.
      learning_rate_schedule, keep_prob_schedule: functions of the step.
      accumulate: micro-batches the batch is cut into.
      ema_decay: of parameters and BN statistics, or None.

    Returns:
      The step. Its metrics are the loss's, `grad_norm`, `learning_rate` and `keep_prob`.
    """

    def micro_step(params, batch_stats, batch, key, keep_prob):
        grads, (batch_stats, metrics) = jax.grad(loss, has_aux=True)(
            params, batch_stats, batch, key, keep_prob
        )
        return grads, batch_stats, metrics

    def train_step(state, batch, key):
        step = state["step"]
        learning_rate, keep_prob = learning_rate_schedule(step), keep_prob_schedule(step)
        key = state_lib.stream(jax.random.fold_in(key, step), "drop")
        if accumulate == 1:
            grads, batch_stats, metrics = micro_step(
                state["params"], state["batch_stats"], batch, key, keep_prob
            )
        else:
            grads, batch_stats, metrics = _accumulated(
                micro_step, state, batch, key, keep_prob, accumulate
            )
        updates, opt_state = optimizer(learning_rate).update(
            grads, state["opt_state"], state["params"]
        )
        new = {
            "step": step + 1,
            "params": optax.apply_updates(state["params"], updates),
            "batch_stats": batch_stats,
            "opt_state": opt_state,
        }
        if ema_decay is not None:
            current = {name: new[name] for name in ("params", "batch_stats")}
            new["ema"] = optax.incremental_update(current, state["ema"], 1.0 - ema_decay)
        metrics |= {
            "grad_norm": optax.tree.norm(grads),
            "learning_rate": learning_rate,
            "keep_prob": jnp.asarray(keep_prob, jnp.float32),
        }
        return new, metrics

    return train_step


def _accumulated(micro_step, state, batch, key, keep_prob, accumulate):
    """Averages the gradients of micro-batches; BN statistics pass from one to the next."""
    # Row i goes to micro-batch i % accumulate: each device keeps the rows it has.
    micro = jax.tree.map(lambda x: x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1), batch)

    def body(carry, inputs):
        grads, batch_stats = carry
        index, micro_batch = inputs
        new, batch_stats, metrics = micro_step(
            state["params"], batch_stats, micro_batch, jax.random.fold_in(key, index), keep_prob
        )
        return (jax.tree.map(jnp.add, grads, new), batch_stats), metrics

    zeros = jax.tree.map(jnp.zeros_like, state["params"])
    (grads, batch_stats), metrics = jax.lax.scan(
        body, (zeros, state["batch_stats"]), (jnp.arange(accumulate), micro)
    )
    metrics = jax.tree.map(lambda x: x.sum(0), metrics)
    metrics["loss"] /= accumulate
    return jax.tree.map(lambda g: g / accumulate, grads), batch_stats, metrics


def make_eval_step(
    task,
    network,
    *,
    drop: bool = False,
    mc_samples: int | None = None,
    judge: bool = False,
    by_device=lambda fn: fn,
):
    """Makes `(variables, batch, key, keep_prob) -> (sums, predictions)`.

    The sums are over the batch's examples that its mask keeps, and `skipped` counts those that
    could not be read; the predictions are the task's, for each example, with that mask.
    `by_device` is `sharding.by_device` of the mesh, for what a device should do by itself.

    With `drop` the drop sites act, at `keep_prob` and with BatchNorm in eval mode: the paper's
    Figure 5. With `mc_samples` they act in so many passes, each with a key of its own, and the
    predictions are those of the mean, with their spread. Else key and keep_prob are without effect.

    With `judge` the predictions have under that name what the task's `judge` takes, see `Task`.
    """

    def eval_step(variables, batch, key, keep_prob):
        images = task.inputs(batch)

        def forward(rng):
            parts = (variables["params"], variables["batch_stats"])
            return network.apply(*parts, images, train=False, keep_prob=keep_prob, rng=rng)[0]

        if mc_samples:

            def sample(rng):
                out = forward(rng)
                return *task.sampled(out), site_sums(out["sites"])

            key = state_lib.stream(key, "mc_samples")
            spread, moments, sites = monte_carlo.average(sample, key, mc_samples)
            out = task.averaged(spread, moments)
        else:
            out = forward(state_lib.stream(key, "eval_drop") if drop else None)
            sites = site_sums(out["sites"])
        predictions = task.predict(out, batch, by_device)
        sums = {
            "sums": task.eval_sums(predictions, batch),
            "skipped": batch["skipped"].sum(),
            "sites": sites,
        }
        if judge:
            predictions = predictions | {"judge": task.to_judge(out, batch, by_device)}
        return sums, predictions | {"mask": batch["mask"]}

    return eval_step
