"""Evaluating a whole set exactly: each example once, on any number of devices and hosts."""

import contextlib
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from training import telemetry
from training.plan import Plan

if TYPE_CHECKING:  # else a start waits for it
    import matplotlib.figure


class Evaluation(NamedTuple):
    """What an evaluation found.

    Attributes:
      metrics: the task's, `kept/<place>` and `expected_kept/<place>` when dropping, `examples`, the
        number of them that count, and `skipped`, of those that could not be read.
      picture: a few examples; None on all processes but 0, and where none was asked for.
      files: the task's texts by file name; none on all processes but 0.
    """

    metrics: dict[str, float]
    picture: "matplotlib.figure.Figure | None"
    files: dict[str, str]


def make_evaluate(
    plan: Plan,
    *,
    drop: bool = False,
    mc_samples: int | None = None,
    judge: bool = False,
    compiling: Callable[[str], contextlib.AbstractContextManager] = contextlib.nullcontext,
):
    """Makes `(variables, keep_prob=1.0, stopping=..., draw=True) -> Evaluation`.

    Args:
      plan: of the network, the data and the devices.
      drop: whether the drop sites act, with BatchNorm in eval mode (the paper's Figure 5), at a
        keep_prob before the places' factors.
      mc_samples: how many predictions are drawn so of each example, whose mean is evaluated.
      judge: whether it is also judged how far the predictions may be trusted.
      compiling: `compiling(what)` is the context in which it is compiled, at the first batch.

    Returns:
      The function. It asks `stopping()` after each batch, and gives up with None as soon as that
      is true; without `draw` there is no picture.
    """
    task = plan.task
    eval_step = plan.eval_step(drop=drop, mc_samples=mc_samples, judge=judge)
    first_call = compiling("the evaluation step")
    contexts = itertools.chain([first_call], itertools.repeat(contextlib.nullcontext()))

    def evaluate(
        variables,
        keep_prob: float = 1.0,
        stopping: Callable[[], Any] = lambda: False,
        draw: bool = True,
    ) -> Any:
        totals: Any = None
        picture: Any = None
        lead = jax.process_index() == 0
        collected = []
        batches = task.eval_batches(batch_size=plan.batch_size, rows=plan.rows)
        for index, local in enumerate(batches):
            batch, key = plan.put_batch(local), jax.random.fold_in(plan.key, index)
            with next(contexts):
                sums, predictions = eval_step(variables, batch, key, np.float32(keep_prob))
            # On the host and in float64: a count beyond 2^24 stays exact.
            sums = jax.tree.map(np.float64, jax.device_get(sums))
            totals = sums if totals is None else jax.tree.map(np.add, totals, sums)
            judged = predictions.pop("judge", {})
            if index == 0 and lead and draw:  # its rows are the first of the batch
                picture = task.draw(jax.device_get(predictions), local)
            if task.collects or judge:
                kept = predictions if task.collects else {"mask": predictions["mask"]}
                collected.append(jax.device_get(kept | judged))
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
        if judge:
            metrics |= task.judge(joined)
        return Evaluation(metrics, picture, task.files(joined) if lead else {})

    return evaluate


def _joined(batches: list[dict]) -> dict:
    """Predictions of all batches one after another, without those of masked examples."""
    return {
        name: np.concatenate([batch[name][batch["mask"]] for batch in batches])
        for name in (batches[0] if batches else ())
    }
