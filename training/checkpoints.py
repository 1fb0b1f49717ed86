"""Checkpoints that are whole or not there: Orbax, and a manifest of sha256 sums beside it.

Orbax commits a step's folder atomically, but reads a flipped byte without a word. So each folder
gets a `manifest.json` when its save has finished, and is believed only if the sums agree.
"""

import concurrent.futures
import hashlib
import json
import math
import pathlib
from typing import Any

import jax
from absl import logging
from etils import epath
from orbax.checkpoint import v1 as ocp

from training import multihost
from training.config import ConfigError

_MANIFEST = "manifest.json"


class Checkpoints:
    """The checkpoints of one run: the latest few, and the best by a metric.

    Args:
      directory: local, or a bucket's; created if it is not there.
      keep: how many to keep before the newest; None to keep all, and to read only.
      best_metric: the metric whose highest value is kept besides.

    Raises:
      ConfigError: a bucket that cannot be reached.
    """

    def __init__(self, directory, *, keep: int | None, best_metric: str):
        if "://" not in str(directory):
            directory = pathlib.Path(directory).absolute()  # Orbax takes no other
        try:
            epath.Path(directory).exists()
        except ImportError as error:  # of the package that reads such buckets
            raise ConfigError(f"{directory} cannot be reached: {error}") from error
        policies = ocp.training.preservation_policies
        best: Any = policies.BestN(
            get_metric_fn=lambda metrics: metrics[best_metric],
            n=1,
            keep_checkpoints_without_metrics=False,
        )
        # One more than asked for: the newest counts only once its manifest is written.
        latest = policies.LatestN(None if keep is None else keep + 1)
        policy: Any = policies.AnyPreservationPolicy([latest, best])
        self._checkpointer = ocp.training.Checkpointer(
            epath.Path(directory),
            preservation_policy=policy,
            cleanup_tmp_directories=keep is not None,
        )
        self._best_metric = best_metric
        self._worker = concurrent.futures.ThreadPoolExecutor(1)
        self._pending: Any = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.finish()
        self._worker.shutdown()
        self._checkpointer.close()

    def save(self, step: int, state, metrics: dict | None):
        """Begins to save `state`; it is completed in the background, see `finish`.

        Args:
          step: finished steps of the run.
          state: pytree of arrays; may be donated as soon as this returns.
          metrics: the evaluation's at this step, if there was one.
        """
        self.finish()
        response = self._checkpointer.save_async(
            step,
            state,
            force=True,
            # A checkpoint of this step makes way: a damaged one, from which nothing was restored,
            # or one that a stop signal had saved without its evaluation.
            overwrite=True,
            metrics=None if metrics is None else {self._best_metric: metrics[self._best_metric]},
        )
        # Completed behind the run's back: a kill must not cost a checkpoint that is on the disk.
        self._pending = self._worker.submit(self._complete, step, response)

    def finish(self):
        """Waits for the save in progress and its manifest."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def _complete(self, step, response):
        response.result()
        if jax.process_index() == 0:
            folder = self._folder(step)
            text = json.dumps(_sums(folder), indent=1)
            # Written aside and renamed: a manifest is whole too, or not there.
            draft = folder / f"{_MANIFEST}.draft"
            draft.write_text(text)
            draft.rename(folder / _MANIFEST)

    def _folder(self, step):
        return self.directory / str(step)

    def _saved(self) -> list[Any]:
        # One without a manifest is a save that was interrupted: it counts as not there.
        return [
            checkpoint
            for checkpoint in self._checkpointer.checkpoints
            if (self._folder(checkpoint.step) / _MANIFEST).exists()
        ]

    @property
    def directory(self) -> epath.Path:
        """Where the checkpoints are."""
        return epath.Path(self._checkpointer.directory)

    @property
    def steps(self) -> list[int]:
        """Steps of the checkpoints there are, ascending, damaged or not."""
        return [checkpoint.step for checkpoint in self._saved()]

    @property
    def best(self) -> int | None:
        """Step of the checkpoint with the best metric, None where none has one."""
        return max(self._scores(), default=(None, None))[1]

    def evaluated(self, step: int) -> bool:
        """Whether the checkpoint of `step` was saved with the metrics of an evaluation."""
        return step in (scored for _, scored in self._scores())

    def best_value(self, until: int) -> float:
        """The best metric of the checkpoints up to a step, -inf where none has one."""
        return max((value for value, step in self._scores() if step <= until), default=-math.inf)

    def step_of(self, name: str) -> int | None:
        """The step that "latest", "best" or a number means; None for the latest whole one.

        Raises:
          ConfigError: there is no such checkpoint.
        """
        steps = self.steps
        if not steps:
            raise ConfigError(f"there is no checkpoint in {self.directory}")
        if name == "latest":
            return None
        if name == "best":
            if self.best is None:
                raise ConfigError(f"no checkpoint in {self.directory} has been evaluated")
            return self.best
        if not name.isdigit() or int(name) not in steps:
            listed = ", ".join(map(str, steps))
            raise ConfigError(f"no checkpoint {name!r} in {self.directory}; there are {listed}")
        return int(name)

    def _scores(self) -> list[tuple[float, int]]:
        return [
            (checkpoint.metrics[self._best_metric], checkpoint.step)
            for checkpoint in self._saved()
            if checkpoint.metrics
        ]

    def restore(self, abstract_state, *, step: int | None = None) -> Any:
        """Loads the latest whole checkpoint, or that of `step`.

        Args:
          abstract_state: shapes, dtypes and shardings of the state.
          step: a certain checkpoint; else damaged ones are named and passed over.

        Returns:
          The state, or None where there is no checkpoint at all.

        Raises:
          ConfigError: no checkpoint is whole, or that of `step` is not.
        """
        unfinished = {c.step for c in self._checkpointer.checkpoints} - set(self.steps)
        if unfinished:
            logging.warning("saves of steps %s were interrupted: not used", sorted(unfinished))
        fault = None
        for candidate in self.steps[::-1] if step is None else [step]:
            if fault is not None:
                logging.warning("%s; using the one before, of step %d", fault, candidate)
            fault = self._fault(candidate)
            if fault is None:
                return self._load(candidate, abstract_state)
        if fault is None:
            return None
        remedy = "start anew in another --workdir" if step is None else "choose another step"
        raise ConfigError(f"{fault}; {remedy}")

    def _load(self, step, abstract_state):
        try:
            return self._checkpointer.load(step, abstract_state=abstract_state)
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"the checkpoint of step {step} in {self.directory} is of another "
                f"model or optimizer than the config's: {error}"
            ) from error

    def _fault(self, step) -> str | None:
        """What is wrong with a checkpoint, as every process sees it."""
        fault = _compare(self._folder(step)) if jax.process_index() == 0 else None
        if not multihost.as_process_0_sees_it(fault is None):
            fault = fault or "process 0 found it damaged"
        return None if fault is None else f"the checkpoint of step {step} is damaged: {fault}"


def _sums(folder: epath.Path) -> dict[str, str]:
    """sha256 of each file under `folder`, by relative path."""
    sums = {}
    folders = [folder]
    while folders:
        for path in folders.pop().iterdir():
            if path.is_dir():
                folders.append(path)
            elif not path.name.startswith(_MANIFEST):
                file: Any
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256")
                sums[path.relative_to(folder).as_posix()] = digest.hexdigest()
    return sums


def _compare(folder: epath.Path) -> str | None:
    """The first disagreement between `folder` and its manifest, None if there is none."""
    try:
        expected = json.loads((folder / _MANIFEST).read_text())
    except FileNotFoundError:
        return f"{folder} has no {_MANIFEST}"
    except ValueError:
        return f"{folder / _MANIFEST} cannot be read"
    found = _sums(folder)
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            return f"{folder / name} is missing"
        if expected.get(name) != found[name]:
            return f"{folder / name} does not have the sha256 sum it was saved with"
    return None
