"""Evaluating a whole set exactly: each example once, on any number of devices and hosts."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import matplotlib.figure
import numpy as np

from training import sharding, telemetry
from training import step as step_lib


class Evaluation(NamedTuple):
    """What an evaluation found.

    Attributes:
      metrics: the task's, `kept/<place>` and `expected_kept/<place>` when dropping, `examples`, the
        number of them that count, and `skipped`, of those that could not be read.
      picture: a few examples; None on all processes but 0.
      files: the task's texts by file name; none on all processes but 0.
    """

    metrics: dict[str, float]
    picture: matplotlib.figure.Figure | None
    files: dict[str, str]


def make_evaluate(plan, mesh, *, keep_prob=1.0, dropping=False):
    """Makes `(variables, key, stopping=...) -> Evaluation`.

    Args:
      plan: `plan.Plan`.
      mesh: the devices.
      keep_prob: with `dropping`, before the places' factors.
      dropping: whether the drop sites act, with BatchNorm in eval mode (the paper's Figure 5).

    Returns:
      The function. It asks `stopping()` after each batch, and gives up with None as soon as that
      is true.
    """
    task, batch_size = plan.task, plan.config.batch_size
    replicated, by_batch = sharding.replicated(mesh), sharding.by_batch(mesh)
    eval_step = jax.jit(
        step_lib.make_eval_step(
            task,
            plan.network,
            keep_prob=keep_prob,
            dropping=dropping,
            by_device=sharding.by_device(mesh),
        ),
        in_shardings=(replicated, by_batch, replicated),
        out_shardings=replicated,
    )

    def evaluate(variables, key, stopping: Callable[[], Any] = lambda: False) -> Any:
        totals: Any = None
        picture: Any = None
        lead = jax.process_index() == 0
        collected = []
        batches = task.eval_batches(rows=sharding.local_rows(mesh, batch_size))
        for index, local in enumerate(batches):
            batch = sharding.put_batch(mesh, local)
            sums, predictions = eval_step(variables, batch, jax.random.fold_in(key, index))
            # On the host and in float64: a count beyond 2^24 stays exact.
            sums = jax.tree.map(np.float64, jax.device_get(sums))
            totals = sums if totals is None else jax.tree.map(np.add, totals, sums)
            if index == 0 and lead:  # its rows are the first of the batch
                picture = task.draw(jax.device_get(predictions), local)
            if task.collects:
                collected.append(jax.device_get(predictions))
            if stopping():
                return None
        count, skipped = int(totals["sums"]["count"]), int(totals["skipped"])
        if count + skipped != task.num_eval:
            raise RuntimeError(
                f"evaluated {count} and skipped {skipped} of {task.num_eval} examples"
            )
        joined = _joined(collected)
        metrics = task.score(totals["sums"], joined) | {"examples": count, "skipped": skipped}
        metrics |= telemetry.place_means(totals["sites"], task.drop.place_of)
        return Evaluation(metrics, picture, task.files(joined) if lead else {})

    return evaluate


def _joined(batches: list[dict]) -> dict:
    """Predictions of all batches one after another, without those of masked examples."""
    return {
        name: np.concatenate([batch[name][batch["mask"]] for batch in batches])
        for name in (batches[0] if batches else ())
    }
