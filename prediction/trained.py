"""A run's checkpoint that predicts."""

import functools
import itertools
from typing import Any

import jax
import numpy as np
from etils import epath
from flax import nnx

from prediction.cam import make_maps
from prediction.predictor import Predictor
from tasks import make_task
from tasks.drop import drop_at_inference
from training import multihost, sharding
from training.config import ConfigError, arguments_are_config
from training.plan import Plan, make_plan
from training.state import variables, weights


class TrainedRun(Predictor):
    """The network of a run's checkpoint, on this process's devices.

    Attributes:
      plan: see `training.plan`; of the config with the run's batch size.
      variables: what the network runs on, `params` and `batch_stats`: their moving average where
        the run has one.
    """

    def __init__(
        self,
        config: Any,
        directory: epath.Path,
        checkpoint: str = "latest",
        *,
        min_score: float | None = None,
        cam: bool = False,
        mc_samples: int | None = None,
        keep_prob: float | None = None,
        seed: int | None = None,
    ):
        """Restores a checkpoint.

        Args:
          config: of the run.
          directory: where its checkpoints are.
          checkpoint, min_score, cam, mc_samples, keep_prob, seed: see `open_run`.

        Raises:
          ConfigError: see `open_run`.
        """
        if min_score is not None:
            set_min_score(config, min_score)
        self._keep_prob, sampling = 1.0, None  # without effect: nothing is dropped
        if mc_samples is not None:
            if seed is not None:
                config.seed = seed
            with arguments_are_config():
                self._keep_prob = drop_at_inference(config, keep_prob)
            sampling = {"mc_samples": mc_samples, "keep_prob": self._keep_prob}
            sampling |= {"seed": config.seed}
        self.plan = make_plan(config, make_task, jax.devices(), train=False, evaluate=False)
        multihost.hold_config_to_process_0(config)
        self._step = self.plan.eval_step(mc_samples=mc_samples)
        if cam:
            self._step = _with_maps(self._step, self.plan)
        state = self.plan.restore(directory, checkpoint)
        self.variables = variables(state)
        super().__init__(self.plan.task, int(state["step"]), weights(state, directory), sampling)
        self._numbers = itertools.count()  # of batches, no two of which are dropped alike

    def __call__(self, batch):
        placed, key = self.plan.put_batch(batch), self.plan.key
        if self.sampling:
            key = jax.random.fold_in(key, next(self._numbers))
        _, predictions = self._step(self.variables, placed, key, np.float32(self._keep_prob))
        return jax.device_get(predictions)

    def batch_size(self, count: int) -> int:
        """The run's own, or as many as there are, if the devices divide it."""
        devices = self.plan.mesh.size
        return -(-min(self.plan.config.batch_size, max(count, 1)) // devices) * devices

    def rows(self, batch_size: int) -> slice:
        return sharding.local_rows(self.plan.mesh, batch_size)

    @property
    def model(self) -> nnx.Module:
        """The network itself, which takes normalised images: `model(x, train=False)`."""
        parts = (self.variables["params"], self.variables["batch_stats"])
        return nnx.merge(self.plan.network.graphdef, *parts, copy=True)


def _with_maps(step, plan: Plan):
    """The step, whose predictions have a map `cam` of each image's likeliest class."""
    maps = make_maps(plan)

    @functools.partial(jax.jit, out_shardings=sharding.replicated(plan.mesh))
    def with_maps(variables, batch, key, keep_prob):
        sums, predictions = step(variables, batch, key, keep_prob)
        # XLA computes once what the two have in common, the network.
        labels = predictions["logits"].argmax(-1)
        return sums, predictions | {"cam": maps(variables, batch, labels)}

    return with_maps


def set_min_score(config, min_score: float):
    """Has boxes of a lower score neither told nor drawn."""
    if "detection" not in config:
        raise ConfigError(
            f"a least score is of boxes: this run is of task {config.task!r}, which has none"
        )
    if not 0 <= min_score <= 1:
        raise ConfigError(f"min_score must be in [0, 1], got {min_score}")
    config.detection.update(min_score=min_score, picture_score=min_score)
