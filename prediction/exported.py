"""An exported network that predicts."""

from typing import Any

import jax
import ml_collections
from etils import epath
from jax import export

from exporting import card
from exporting.program import served
from exporting.served import MAP
from prediction.cam import ARE_FOR
from prediction.predictor import Predictor
from prediction.trained import set_min_score
from tasks import make_task
from training.config import ConfigError, arguments_are_config


class ExportedRun(Predictor):
    """The network of an exported folder, on this process's first device.

    Attributes:
      exported: the function, as `jax.export` has it.
      card: what `predict.json` says.
    """

    def __init__(self, folder: epath.Path, *, min_score: float | None = None, cam: bool = False):
        """Loads it.

        Args:
          folder: what export.py wrote.
          min_score, cam: see `open_run`.

        Raises:
          ConfigError: a file is missing, damaged, of another export or of a later jax; or maps are
            asked for of a network that has none.
        """
        self.card = card.read(folder)
        config: Any = ml_collections.ConfigDict(self.card["config"])
        if min_score is not None:
            least = config.detection.min_score if "detection" in config else 0.0
            set_min_score(config, min_score)
            if min_score < least:
                raise ConfigError(
                    f"{folder} was exported with a least score of {least}: of lower ones it has "
                    f"no boxes, got {min_score}"
                )
        with arguments_are_config():
            task = make_task(config, train=False, evaluate=False)
        if list(task.class_names) != self.card["classes"]:
            raise ConfigError(f"{folder / card.NAME} has other classes than its config")
        self._cam = cam
        if cam and MAP not in self.card["outputs"]:
            raise ConfigError(
                f"{ARE_FOR}: {folder} gives none, of task {config.task!r} and model "
                f"{config.model.name!r}"
            )
        step = self.card["step"]
        super().__init__(task, step, f"{self.card['weights']} of step {step}, exported to {folder}")
        self.exported = _deserialized(folder, card.content(folder, self.card, card.MODEL))
        self._call = jax.jit(self.exported.call)
        self._inputs = tuple(served(task).all_inputs(config))

    def __call__(self, batch):
        found = jax.device_get(self._call(*(batch[name] for name in self._inputs)))
        maps = {"cam": found[MAP]} if self._cam else {}
        return served(self.task).predictions(found, batch) | maps | {"mask": batch["mask"]}

    def batch_size(self, count: int) -> int:
        """The run's own, or as many as there are."""
        return min(self.task.config.batch_size, max(count, 1))


def _deserialized(folder: epath.Path, content: bytes) -> export.Exported:
    try:
        return export.deserialize(bytearray(content))
    except ImportError as error:
        raise ConfigError(f"a package is missing, which the extra train has: {error}") from error
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ConfigError(
            f"{folder / card.MODEL} cannot be read by jax {jax.__version__} ({error}): export anew"
        ) from error
