"""What the figures about trained networks share: three kinds of training, and their checkpoints."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax

from experiments.runner import Row, Run
from tasks import make_task
from training import config as config_lib
from training import sharding
from training.checkpoints import Checkpoints
from training.plan import Plan, make_plan
from training.state import variables


def make_rows(block: int) -> list[Row]:
    """Trained without dropping, with block 1, and with a larger block (the paper's is 7)."""
    return [
        Row("baseline", "baseline"),
        Row("block1", "dropblock", {"drop.block_size": 1}),
        Row(f"block{block}", "dropblock", {"drop.block_size": block}),
    ]


@dataclasses.dataclass(frozen=True)
class Trained:
    """A finished run's best checkpoint, on this process's devices.

    Attributes:
      plan: its config, made ready.
      variables: parameters and BN statistics.
      mesh: the devices.
    """

    plan: Plan
    variables: Any
    mesh: Any

    def batches(self) -> Iterator[dict]:
        """The evaluation split, batch by batch, on the devices."""
        rows = sharding.local_rows(self.mesh, self.plan.config.batch_size)
        for batch in self.plan.task.eval_batches(rows=rows):
            yield sharding.put_batch(self.mesh, batch)


def make_plan_of(run: Run, **drop) -> Plan:
    """A finished run's plan, for evaluation on this process's devices.

    Args:
      run: see `runner.Run`.
      **drop: fields of `config.drop` to have other values than in training.
    """
    config = config_lib.from_json(run.workdir / "config.json")
    with config.ignore_type():
        config.drop.update(drop)
    devices = sharding.make_mesh().size
    config.batch_size = -(-config.batch_size // devices) * devices  # padded and masked
    return make_plan(config, functools.partial(make_task, train=False))


def load(run: Run, **drop) -> Trained:
    """Loads the best checkpoint of a finished run; arguments as of `make_plan_of`."""
    mesh, plan = sharding.make_mesh(), make_plan_of(run, **drop)
    metric = plan.task.best_metric
    with Checkpoints(run.workdir / "checkpoints", keep=None, best_metric=metric) as checkpoints:
        step = checkpoints.best
        if step is None:
            raise config_lib.ConfigError(f"no checkpoint of {run.workdir} has been evaluated")
        state = checkpoints.restore(plan.abstract_state(mesh), step=step)
    state = jax.device_put(state, sharding.replicated(mesh))
    return Trained(plan, variables(state), mesh)
