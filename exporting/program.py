"""The function that is exported, and its jax.export artefact."""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import export

from exporting.served import SERVED, Served
from tasks.base import Task
from training import state as state_lib
from training.config import ConfigError

PLATFORMS = ("cpu", "cuda", "tpu")


def served(task: Task) -> Served:
    """The row of a task.

    Raises:
      ConfigError: it has none.
    """
    kind = task.config.task
    if kind not in SERVED:
        raise ConfigError(
            f"task {kind!r} has no row in SERVED (exporting/served.py), which says what an "
            "exported network of it takes and gives"
        )
    return SERVED[kind]


def make_function(
    task: Task,
    variables: dict[str, Any],
    decode: Callable | None = None,
    platform: str | None = "any",
):
    """The network as a function of what `Served.all_inputs` names, in that order.

    Args:
      task: of the run.
      variables: the weights, `params` and `batch_stats`; they become constants.
      decode: see `Served.decode`; by default that of the task's row.
      platform: see `models.layers.Layers`.

    Returns:
      A function of arrays whose first axis is the batch, of any size.
    """
    row = served(task)
    network = state_lib.make_network(lambda rngs: task.make_model(platform, rngs))
    params, stats = (jax.tree.map(np.asarray, variables[k]) for k in ("params", "batch_stats"))
    names = tuple(row.all_inputs(task.config))

    def function(*arrays):
        inputs = dict(zip(names, arrays, strict=True))
        out, _ = network.apply(params, stats, task.inputs(inputs), train=False)
        return (decode or row.decode)(task, params, out, inputs)

    return function


def shapes(task: Task, batch: Any) -> list[jax.ShapeDtypeStruct]:
    """Of the function's arguments, for a batch of so many, or of a symbolic size."""
    inputs = served(task).all_inputs(task.config)
    return [jax.ShapeDtypeStruct((batch, *x.shape), x.dtype) for x in inputs.values()]


def to_jax(task: Task, variables: dict[str, Any]) -> export.Exported:
    """The function for all of `PLATFORMS` and for any batch size."""
    function = jax.jit(make_function(task, variables))
    (batch,) = export.symbolic_shape("batch")
    with _no_source():
        return export.export(function, platforms=PLATFORMS)(*shapes(task, batch))


@contextlib.contextmanager
def _no_source():
    """Within it a program does not tell the lines of this machine's files that it is made of."""
    name = "jax_traceback_in_locations_limit"
    before = jax.config.values[name]
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)
