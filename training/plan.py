"""What a config means on some devices: everything that follows from the two stands here."""

import dataclasses
import functools
import math
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
from training.checkpoints import Checkpoints
from training.config import ConfigError, arguments_are_config


@dataclasses.dataclass(frozen=True)
class Plan:
    """A config, made ready to run on a mesh of devices.

    The devices need not be there: shapes, shardings and the lowered steps are the same for those of
    a topology (`jax.experimental.topologies`), only what holds arrays is not to be had.

    Attributes:
      config: see `configs/defaults.py`.
      task: what `config.task` names.
      mesh: the devices.
      network: the model by shape, and its pure functions.
      optimizer: `learning_rate -> optax transformation`.
      learning_rate_schedule, keep_prob_schedule: pure functions of the step; keep_prob is that
        before the places' factors.
      steps_per_epoch, total_steps: lengths.
      batch_size: global; in evaluation what the devices divide, the last batch being padded.
    """

    config: Any
    task: Any
    mesh: Mesh
    network: state_lib.Network
    optimizer: Callable[..., optax.GradientTransformation]
    learning_rate_schedule: Callable
    keep_prob_schedule: Callable
    steps_per_epoch: int
    total_steps: int
    batch_size: int

    @property
    def platform(self) -> str:
        """Of the devices: "cpu", "gpu" or "tpu"."""
        return sharding.platform(self.mesh)

    @property
    def eval_every(self) -> int:
        """Steps from one evaluation to the next."""
        return max(round(self.config.eval_every_epochs * self.steps_per_epoch), 1)

    @property
    def quiet_settings(self) -> list[str]:
        """Sentences about settings that are allowed, but seldom meant."""
        config, said = self.config, []
        warmup = round(config.schedule.warmup_epochs * self.steps_per_epoch)
        if 3 * warmup > self.total_steps:
            said.append(
                f"the learning rate rises for {warmup:,} of {self.total_steps:,} steps: set"
                " config.schedule.warmup_epochs lower, or train for longer"
            )
        examples = self.task.num_train
        if config.batch_size > examples:
            said.append(
                f"a batch of {config.batch_size} is larger than the training set of {examples}, of"
                f" which it holds some examples several times: set config.batch_size to {examples}"
                " or less"
            )
        wanted, names = config.data.num_classes, self.task.class_names
        if wanted is not None and wanted != len(names):
            said.append(
                f"config.data.num_classes is {wanted}, and the data has {len(names)} classes, which"
                " is what counts"
            )
        return said

    # --- State.

    def _create(self, key: jax.Array) -> dict:
        ema = self.config.ema_decay is not None
        return state_lib.create(self.network, self.optimizer(0.0), key, ema=ema)

    @functools.cached_property
    def abstract_state(self) -> Any:
        """Shapes, dtypes and shardings of the state."""
        shapes = jax.eval_shape(self._create, self.abstract_key)
        return jax.tree.map(
            lambda x: sharding.with_sharding(x, self.network.cut(x.shape) or self._replicated),
            shapes,
        )

    @functools.cached_property
    def state_sharding(self) -> Any:
        """The sharding of each array of the state."""
        return jax.tree.map(lambda x: x.sharding, self.abstract_state)

    def create(self) -> dict:
        """The state at step 0, on the devices."""
        return jax.jit(self._create, out_shardings=self.state_sharding)(self.key)

    def checkpoints(self, directory, *, keep: int | None = None) -> Checkpoints:
        """The checkpoints in a folder; with `keep` to write there too."""
        return Checkpoints(directory, keep=keep, best_metric=self.task.best_metric)

    def restore(self, directory, checkpoint: str = "latest", *, or_latest: bool = False) -> dict:
        """The state of a checkpoint, on the devices.

        Args:
          directory: where the checkpoints are.
          checkpoint: "latest", "best", or a step.
          or_latest: take the latest where none is the best, since none was evaluated.

        Raises:
          ConfigError: there is no such checkpoint, it is damaged, or of another model.
        """
        with self.checkpoints(directory) as checkpoints:
            if or_latest and checkpoints.best is None:
                checkpoint = "latest"
            step = checkpoints.step_of(checkpoint)
            return checkpoints.restore(self.abstract_state, step=step)

    # --- Keys and batches.

    @functools.cached_property
    def abstract_key(self) -> Any:
        """Shape, dtype and sharding of `key`."""
        return sharding.with_sharding(jax.eval_shape(self._key), self._replicated)

    @functools.cached_property
    def key(self) -> jax.Array:
        """The run's key, on the devices; all others are made from it."""
        return jax.jit(self._key, out_shardings=self._replicated)()

    def _key(self):
        # Named, so that no setting of jax gives a run of the same config other masks.
        return jax.random.key(self.config.seed, impl="threefry2x32")

    @functools.cached_property
    def abstract_batch(self) -> dict:
        """Shapes, dtypes and shardings of a training batch."""
        return sharding.with_sharding(self.task.batch_shapes(self.batch_size), self._by_batch)

    @property
    def rows(self) -> slice:
        """The rows of a batch that this process holds."""
        return sharding.local_rows(self.mesh, self.batch_size)

    def put_batch(self, batch: dict) -> dict:
        """Moves this process's rows of a batch to its devices."""
        return sharding.put_batch(self.mesh, batch)

    # --- Programs.

    @functools.cached_property
    def loss(self) -> Callable:
        """See `step.make_loss`."""
        return step_lib.make_loss(self.task, self.network)

    @functools.cached_property
    def train_step(self):
        """The jitted `(state, batch, key) -> (state, metrics)`; the state is donated."""
        step = step_lib.make_train_step(
            self.loss,
            self.optimizer,
            learning_rate_schedule=self.learning_rate_schedule,
            keep_prob_schedule=self.keep_prob_schedule,
            accumulate=self.config.accumulate,
            ema_decay=self.config.ema_decay,
        )
        return jax.jit(
            step,
            in_shardings=(self.state_sharding, self._by_batch, self._replicated),
            out_shardings=(self.state_sharding, self._replicated),
            donate_argnums=0,
        )

    @functools.cached_property
    def compiled_train_step(self):
        """`train_step`, compiled for the devices."""
        return self.lower_train_step().compile()

    def lower_train_step(self):
        """The training step, lowered for the devices."""
        return self.train_step.lower(self.abstract_state, self.abstract_batch, self.abstract_key)

    def eval_step(self, *, drop: bool = False):
        """The jitted `(variables, batch, key, keep_prob) -> (sums, predictions)`.

        See `step.make_eval_step`.
        """
        step = step_lib.make_eval_step(
            self.task, self.network, drop=drop, by_device=sharding.by_device(self.mesh)
        )
        variables = state_lib.variables(self.state_sharding)
        return jax.jit(
            step,
            in_shardings=(variables, self._by_batch, self._replicated, None),
            out_shardings=self._replicated,
        )

    @property
    def _replicated(self):
        return sharding.replicated(self.mesh)

    @property
    def _by_batch(self):
        return sharding.by_batch(self.mesh)


def make_plan(
    config: Any,
    make_task: Callable,
    devices,
    *,
    train: bool = True,
    evaluate: bool = True,
    need_data: bool = True,
) -> Plan:
    """Checks a config by building all of it by shape.

    Args:
      config: see `configs/defaults.py`.
      make_task: `(config, train=..., evaluate=..., need_data=...) -> task`, see `tasks`.
      devices: to run on, or to lower and compile for.
      train: whether to train, or else only to evaluate: without the training data, and with batches
        of any size.
      evaluate: whether to open the evaluation split.
      need_data: if False, data that is not there is no error.

    Raises:
      ConfigError: what is wrong, and what would be right.
    """
    mesh = sharding.make_mesh(devices)
    with arguments_are_config():
        task = make_task(config, train=train, evaluate=evaluate, need_data=need_data)
        steps_per_epoch, total_steps = lengths(config, task.num_train)
        _check(config)
        learning_rate_schedule = optimizer_lib.learning_rate_schedule(
            config.schedule,
            batch_size=config.batch_size,
            steps_per_epoch=steps_per_epoch,
            total_steps=total_steps,
        )
        target = config.drop.keep_prob if task.drop.kind != "none" else 1.0
        platform = sharding.platform(mesh)
        # A run that was begun before there was the field has none.
        shard = config.get("shard_state", False)
        network = state_lib.make_network(
            lambda rngs: task.make_model(platform, rngs), mesh if shard else None
        )
        optimizer = optimizer_lib.make_optimizer(config.optimizer, network.params)
    if train:
        sharding.check_batch(mesh, config.batch_size, config.accumulate)
        _check_groups(config)
    return Plan(
        config,
        task,
        mesh,
        network,
        optimizer,
        learning_rate_schedule,
        keep_prob_schedule(target, total_steps, config.drop.schedule),
        steps_per_epoch,
        total_steps,
        -(-config.batch_size // mesh.size) * mesh.size,
    )


def _check(config):
    """Raises ValueError for a field out of range, of those that no other part looks at."""
    checks.probability("drop.keep_prob", config.drop.keep_prob)
    checks.choice("drop.schedule", config.drop.schedule, SCHEDULES)
    if config.seed < 0:
        raise ValueError(f"seed must not be negative, got {config.seed}")
    decay = config.ema_decay
    if decay is not None and not 0.0 <= decay < 1.0:
        raise ValueError(f"ema_decay must be in [0, 1) or None, got {decay}")
    for name in (
        "log_every_steps",
        "checkpoint_every_steps",
        "eval_every_epochs",
        "keep_checkpoints",
    ):
        if config[name] <= 0:
            raise ValueError(f"{name} must be positive, got {config[name]}")


def _check_groups(config):
    """Raises ConfigError where a (micro-)batch cannot be cut into groups of examples."""
    group, examples = config.model.get("bn_group_size", 0), config.batch_size // config.accumulate
    if group < 0 or (0 < group < examples and examples % group):
        raise ConfigError(
            f"model.bn_group_size {group} does not divide the {examples} examples of a "
            f"{'batch' if config.accumulate == 1 else 'micro-batch'}: use a divisor, or 0 for "
            "the statistics of all"
        )


def lengths(config: Any, num_examples: int) -> tuple[int, int]:
    """Steps of an epoch and of the run.

    An epoch is `num_examples // batch_size` steps, as in the authors' code (1251 for ImageNet at
    1024), at least one.

    Raises:
      ConfigError: not exactly one of `epochs` and `steps` is given, or it is not positive.
    """
    if config.batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {config.batch_size}")
    if config.epochs is not None and not math.isfinite(config.epochs):
        raise ConfigError(f"epochs must be a finite number, got {config.epochs}")
    if (config.epochs is None) == (config.steps is None):
        raise ConfigError(
            f"give either epochs or steps, got epochs={config.epochs} and steps={config.steps}"
        )
    per_epoch = max(num_examples // config.batch_size, 1)
    total = config.steps if config.steps is not None else round(config.epochs * per_epoch)
    if total < 1:
        raise ConfigError(f"the run must have at least one step, got {total}")
    return per_epoch, total
