"""Evaluating a whole set exactly: each example once, on any number of devices and hosts."""

import contextlib
import itertools
from collections.abc import Callable, Iterable
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
      picture: a few examples; None on all processes but 0, where none was asked for, and where none
        of them could be read.
      files: the task's texts by file name; none on all processes but 0.
    """

    metrics: dict[str, float]
    picture: "matplotlib.figure.Figure | None"
    files: dict[str, str]


def make_evaluate(
    plan: Plan,
    *,
    drop: bool = False,
    compiling: Callable[[str], contextlib.AbstractContextManager] = contextlib.nullcontext,
    tell: Callable[[int, int], None] = lambda done, total: None,
):
    """Makes `(variables, keep_prob=1.0, stopping=..., draw=True) -> Evaluation`.

    Args:
      plan: of the network, the data and the devices.
      drop: whether the drop sites act, with BatchNorm in eval mode (the paper's Figure 5), at a
        keep_prob before the places' factors.
      compiling: `compiling(what)` is the context in which it is compiled, at the first batch.
      tell: called as `tell(done, total)` after each batch, with the examples that are done.

    Returns:
      The function. It asks `stopping()` after each batch, and gives up with None as soon as that
      is true; without `draw` there is no picture.
    """
    task, eval_step = plan.task, plan.eval_step(drop=drop)
    first_call = compiling("the evaluation step")
    contexts = itertools.chain([first_call], itertools.repeat(contextlib.nullcontext()))

    def evaluate(
        variables,
        keep_prob: float = 1.0,
        stopping: Callable[[], Any] = lambda: False,
        draw: bool = True,
    ) -> Any:
        totals: Any = None
        lead = jax.process_index() == 0
        collected, examples = [], []
        drawn = _spread(task.num_drawn, task.num_eval, plan) if lead and draw else {}
        batches = task.eval_batches(batch_size=plan.batch_size, rows=plan.rows)
        for index, local in enumerate(batches):
            batch, key = plan.put_batch(local), jax.random.fold_in(plan.key, index)
            with next(contexts):
                sums, predictions = eval_step(variables, batch, key, np.float32(keep_prob))
            # On the host and in float64: a count beyond 2^24 stays exact.
            sums = jax.tree.map(np.float64, jax.device_get(sums))
            totals = sums if totals is None else jax.tree.map(np.add, totals, sums)
            found = jax.device_get(predictions) if task.collects or index in drawn else {}
            if task.collects:
                collected.append(found)
            rows = [row for row in drawn.get(index, ()) if local["mask"][row]]
            if rows:
                own = np.add(
                    rows, plan.rows.start
                )  # of the predictions, which are of all processes
                examples.append((_taken(found, own), _taken(local, rows)))
            tell(min((index + 1) * plan.batch_size, task.num_eval), task.num_eval)
            if stopping():
                return None
        count, skipped = int(totals["sums"]["count"]), int(totals["skipped"])
        if count + skipped != task.num_eval:
            raise RuntimeError(
                f"evaluated {count} and skipped {skipped} of {task.num_eval} examples"
            )
        joined = _joined(_taken(batch, batch["mask"]) for batch in collected)
        metrics = task.score(totals["sums"], joined) | {"examples": count, "skipped": skipped}
        metrics |= telemetry.place_means(totals["sites"], task.drop.place_of)
        picture = task.draw(*map(_joined, zip(*examples, strict=True))) if examples else None
        return Evaluation(metrics, picture, task.files(joined) if lead else {})

    return evaluate


def _spread(number: int, size: int, plan: Plan) -> dict[int, list[int]]:
    """Examples that this process reads, from all over the split, by batch and row in it.

    One at random of each of `number` equal parts, which in a set of films at equal steps could all
    be of one camera; always the same ones.
    """
    batch_size, (start, stop) = plan.batch_size, (plan.rows.start, plan.rows.stop)
    batch, row = np.divmod(np.arange(size), batch_size)
    mine = np.flatnonzero((row >= start) & (row < stop))
    number = min(number, len(mine))
    bounds = np.arange(number + 1) * len(mine) // max(number, 1)
    chosen = mine[np.random.default_rng(0).integers(bounds[:-1], bounds[1:])]
    spread: dict[int, list[int]] = {}
    for index in chosen.tolist():
        spread.setdefault(int(batch[index]), []).append(int(row[index]) - start)
    return spread


def _taken(batch: dict, rows) -> dict:
    return {name: values[rows] for name, values in batch.items()}


def _joined(batches: Iterable[dict]) -> dict:
    """Batches one after another."""
    batches = list(batches)
    return {
        name: np.concatenate([batch[name] for batch in batches])
        for name in (batches[0] if batches else ())
    }
