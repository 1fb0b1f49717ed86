"""What the figures about trained networks share: three kinds of training, and their checkpoints."""

from typing import Any

import jax

from experiments.runner import Row, Run
from tasks import make_task
from training import config as config_lib
from training.plan import Plan, make_plan
from training.state import variables


def make_rows(block: int) -> list[Row]:
    """Trained without dropping, with block 1, and with a larger block (the paper's is 7)."""
    return [
        Row("baseline", "baseline"),
        Row("block1", "dropblock", {"drop.block_size": 1}),
        Row(f"block{block}", "dropblock", {"drop.block_size": block}),
    ]


def make_plan_of(run: Run, **drop) -> Plan:
    """A finished run's plan, for evaluation on this process's devices.

    Args:
      run: see `runner.Run`.
      **drop: fields of `config.drop` to have other values than in training.
    """
    config = config_lib.from_json(run.workdir / "config.json")
    with config.ignore_type():
        config.drop.update(drop)
        if drop:
            config.model.head_keep_prob = 1.0  # the drop sites alone are to act
    return make_plan(config, make_task, jax.devices(), train=False)


def load(run: Run, **drop) -> tuple[Plan, Any]:
    """The plan of a finished run, and the variables of its best checkpoint.

    Arguments are as of `make_plan_of`.

    Raises:
      ConfigError: no checkpoint was evaluated, or the best one is damaged.
    """
    plan = make_plan_of(run, **drop)
    return plan, variables(plan.restore(run.workdir / "checkpoints", "best"))
