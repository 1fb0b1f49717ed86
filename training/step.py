"""One step of training and one of evaluation, as pure functions."""

import jax
import jax.numpy as jnp
import optax

from training import state as state_lib


def make_train_step(
    task,
    network,
    optimizer,
    *,
    learning_rate,
    keep_prob,
    own_keep_probs,
    accumulate,
    ema_decay,
):
    """Makes `(state, batch, key) -> (state, metrics)`.

    Args:
      task: gives `inputs`, `loss`, `drops`.
      network: `state.Network`.
      optimizer: an optax transformation whose update takes the `learning_rate`.
      learning_rate, keep_prob: functions of the step.
      own_keep_probs: such functions by the name of the network's argument.
      accumulate: micro-batches the batch is cut into.
      ema_decay: of parameters and BN statistics, or None.

    Returns:
      The step. Its metrics: `sums` of the task, `loss`, `grad_norm`, `learning_rate`, `keep_prob`,
      and `sites`, see `site_sums`.
    """

    def micro_step(params, batch_stats, batch, key, keep_probs):
        def loss_fn(params):
            out, new_stats = network.apply(
                params,
                batch_stats,
                task.inputs(batch),
                train=True,
                rng=key if task.drops else None,
                **keep_probs,
            )
            loss, sums = task.loss(out, batch)
            return loss, (new_stats, {"loss": loss, "sums": sums, "sites": site_sums(out)})

        grads, (batch_stats, metrics) = jax.grad(loss_fn, has_aux=True)(params)
        return grads, batch_stats, metrics

    def train_step(state, batch, key):
        step = state["step"]
        rate = learning_rate(step)
        schedules = {"keep_prob": keep_prob} | own_keep_probs
        keep_probs = {name: schedule(step) for name, schedule in schedules.items()}
        key = state_lib.stream(jax.random.fold_in(key, step), "drop")
        if accumulate == 1:
            grads, batch_stats, metrics = micro_step(
                state["params"], state["batch_stats"], batch, key, keep_probs
            )
        else:
            grads, batch_stats, metrics = _accumulated(
                micro_step, state, batch, key, keep_probs, accumulate
            )
        updates, opt_state = optimizer.update(
            grads, state["opt_state"], state["params"], learning_rate=rate
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
            "learning_rate": rate,
        }
        metrics |= {name: jnp.asarray(kept, jnp.float32) for name, kept in keep_probs.items()}
        return new, metrics

    return train_step


def _accumulated(micro_step, state, batch, key, keep_probs, accumulate):
    """Averages the gradients of micro-batches; BN statistics pass from one to the next."""
    # Row i goes to micro-batch i % accumulate: each device keeps the rows it has.
    micro = jax.tree.map(lambda x: x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1), batch)

    def body(carry, inputs):
        grads, batch_stats = carry
        index, micro_batch = inputs
        new, batch_stats, metrics = micro_step(
            state["params"], batch_stats, micro_batch, jax.random.fold_in(key, index), keep_probs
        )
        return (jax.tree.map(jnp.add, grads, new), batch_stats), metrics

    zeros = jax.tree.map(jnp.zeros_like, state["params"])
    (grads, batch_stats), metrics = jax.lax.scan(
        body, (zeros, state["batch_stats"]), (jnp.arange(accumulate), micro)
    )
    metrics = jax.tree.map(lambda x: x.sum(0), metrics)
    metrics["loss"] /= accumulate
    return jax.tree.map(lambda g: g / accumulate, grads), batch_stats, metrics


def site_sums(out) -> dict:
    """For each drop site of a model's output, sums over the batch.

    Returns:
      `{site: {"count", "dropped", "expected_dropped", "seeds"}}`, float32 scalars: examples,
      their dropped fractions, the expectation of those, and the expected number of seeds.
    """
    sites = {}
    for name, kept in out["kept"].items():
        expected = out["expected"][name]
        count = jnp.float32(kept.shape[0])
        sites[name] = {
            "count": count,
            "dropped": jnp.sum(1.0 - kept),
            "expected_dropped": count * (1.0 - expected["kept"]),
            "seeds": expected["seeds"],
        }
    return sites


def make_eval_step(task, network, *, keep_prob=1.0, dropping=False, by_device=lambda fn: fn):
    """Makes `(variables, batch, key) -> (sums, predictions)`.

    The sums are over the batch's examples that its mask keeps, and `skipped` counts those that
    could not be read; the predictions are the task's, for each example, with that mask.
    `by_device` is `sharding.by_device` of the mesh, for what a device should do by itself.

    With `dropping` the drop sites act, at `keep_prob` and with BatchNorm in eval mode: the
    paper's Figure 5.
    """

    def eval_step(variables, batch, key):
        out, _ = network.apply(
            variables["params"],
            variables["batch_stats"],
            task.inputs(batch),
            train=False,
            keep_prob=keep_prob,
            rng=state_lib.stream(key, "eval_drop") if dropping else None,
        )
        predictions = task.predict(out, batch, by_device)
        sums = {
            "sums": task.eval_sums(predictions, batch),
            "skipped": batch["skipped"].sum(),
            "sites": site_sums(out),
        }
        return sums, predictions | {"mask": batch["mask"]}

    return eval_step
