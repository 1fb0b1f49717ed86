"""What a config means: its task, network, optimizer and schedules, checked and by shape alone."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from dropblock import checks, keep_prob_schedule
from dropblock.schedule import KINDS as SCHEDULES
from training import optimizer as optimizer_lib
from training import sharding
from training import state as state_lib
from training import step as step_lib
from training.config import ConfigError, checking, steps


@dataclasses.dataclass(frozen=True)
class Plan:
    """A config, made ready to run.

    Attributes:
      config: see `configs/defaults.py`.
      task: what `config.task` names.
      network: the model by shape, and its pure functions.
      optimizer: an optax transformation whose update takes the `learning_rate`.
      learning_rate, keep_prob: pure functions of the step; keep_prob before the places' factors.
      own_keep_probs: of what the network drops besides, by the name of its argument.
      steps_per_epoch, total_steps: lengths.
    """

    config: Any
    task: Any
    network: state_lib.Network
    optimizer: optax.GradientTransformationExtraArgs
    learning_rate: Callable
    keep_prob: Callable
    own_keep_probs: dict[str, Callable]
    steps_per_epoch: int
    total_steps: int

    def create(self, key: jax.Array) -> dict:
        """The state at step 0."""
        ema = self.config.ema_decay is not None
        return state_lib.create(self.network, self.optimizer, key, ema=ema)

    def train_step(self, mesh: Mesh):
        """The jitted `(state, batch, key) -> (state, metrics)`; the state is donated."""
        replicated, by_batch = sharding.replicated(mesh), sharding.by_batch(mesh)
        step = step_lib.make_train_step(
            self.task,
            self.network,
            self.optimizer,
            learning_rate=self.learning_rate,
            keep_prob=self.keep_prob,
            own_keep_probs=self.own_keep_probs,
            accumulate=self.config.accumulate,
            ema_decay=self.config.ema_decay,
        )
        return jax.jit(
            step,
            in_shardings=(replicated, by_batch, replicated),
            out_shardings=(replicated, replicated),
            donate_argnums=0,
        )

    def abstract_state(self, mesh: Mesh) -> dict:
        """Shapes, dtypes and shardings of the state."""
        replicated = sharding.replicated(mesh)
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated), self._shapes
        )

    @functools.cached_property
    def _shapes(self):
        return jax.eval_shape(self.create, jax.random.key(0))


def make_plan(config: Any, make_task: Callable) -> Plan:
    """Checks a config by building all of it by shape.

    Args:
      config: see `configs/defaults.py`.
      make_task: `config -> task`.

    Raises:
      ConfigError: what is wrong, and what would be right.
    """
    with checking():
        task = make_task(config)
        steps_per_epoch, total_steps = steps(config, task.num_train)
        learning_rate = optimizer_lib.learning_rate_schedule(
            config.schedule,
            batch_size=config.batch_size,
            steps_per_epoch=steps_per_epoch,
            total_steps=total_steps,
        )
        checks.probability("drop.keep_prob", config.drop.keep_prob)
        checks.choice("drop.schedule", config.drop.schedule, SCHEDULES)
        if config.seed < 0:
            raise ConfigError(f"seed must not be negative, got {config.seed}")
        target = config.drop.keep_prob if task.drop.kind != "none" else 1.0
        keep_prob = keep_prob_schedule(target, total_steps, config.drop.schedule)
        own_keep_probs = {
            name: keep_prob_schedule(target, total_steps)
            for name, target in task.own_keep_probs.items()
        }
        network = state_lib.make_network(task.make_model)
        optimizer = optimizer_lib.make_optimizer(config.optimizer, network.decayed)
        decay = config.ema_decay
        if decay is not None and not 0.0 <= decay < 1.0:
            raise ConfigError(f"ema_decay must be in [0, 1) or None, got {decay}")
        for name in (
            "log_every_steps",
            "checkpoint_every_steps",
            "eval_every_epochs",
            "keep_checkpoints",
        ):
            if config[name] <= 0:
                raise ConfigError(f"{name} must be positive, got {config[name]}")
    return Plan(
        config,
        task,
        network,
        optimizer,
        learning_rate,
        keep_prob,
        own_keep_probs,
        steps_per_epoch,
        total_steps,
    )
