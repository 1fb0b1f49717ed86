"""A run's checkpoint that predicts."""

from typing import Any

import jax
import numpy as np
from etils import epath
from flax import nnx

from prediction.predictor import Predictor
from tasks import make_task
from training import multihost, sharding
from training.plan import make_plan
from training.state import variables


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
    ):
        """Restores a checkpoint.

        Args:
          config: of the run.
          directory: where its checkpoints are.
          checkpoint, min_score, cam: see `open_run`.

        Raises:
          ConfigError: see `open_run`.
        """
        self.plan = make_plan(config, make_task, jax.devices(), train=False, evaluate=False)
        multihost.hold_config_to_process_0(config)
        state = self.plan.restore(directory, checkpoint)
        self.variables = variables(state)
        step = int(state["step"])
        kind = "moving average (EMA) of the weights" if "ema" in state else "weights"
        super().__init__(self.plan.task, step, f"{kind} of step {step}, {directory / str(step)}")
        self._step = self.plan.eval_step()

    def __call__(self, batch):
        keep_prob = np.float32(1)  # without effect: nothing is dropped
        placed = self.plan.put_batch(batch)
        _, predictions = self._step(self.variables, placed, self.plan.key, keep_prob)
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
