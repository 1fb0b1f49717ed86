"""Checkpoints that are whole or not there: Orbax, and a manifest of sha256 sums beside it."""

import concurrent.futures
import functools
import math
import pathlib
import re
import sys
import warnings
from typing import Any

import jax
from absl import logging
from etils import epath
from orbax.checkpoint import v1 as ocp

from training import manifest, multihost
from training.config import ConfigError
from training.files import WriteError, writing

_UNFINISHED = ".orbax-checkpoint-tmp"  # in the names of folders that Orbax has not committed


class Checkpoints:
    """The checkpoints of one run: the latest few, and the best by a metric.

    Damaged ones are named in a warning when they are found, and pass for none.

    Args:
      directory: local, or a bucket's; created if it is not there and written to.
      keep: how many to keep before the newest; None to read only.
      best_metric: the metric whose highest value is kept besides.

    Attributes:
      directory: where they are.

    Raises:
      ConfigError: a bucket that cannot be reached.
    """

    def __init__(self, directory, *, keep: int | None, best_metric: str):
        if "://" not in str(directory):
            directory = pathlib.Path(directory).absolute()  # Orbax takes no other
        self.directory = epath.Path(directory)
        try:
            self.directory.exists()
        except ImportError as error:  # of the package that reads such buckets
            raise ConfigError(f"{directory} cannot be reached: {error}") from error
        self._keep = keep
        self._best_metric = best_metric
        self._worker = concurrent.futures.ThreadPoolExecutor(1)
        self._pending: Any = None
        # Of each step that counts as saved, its score or None, and what is wrong with the others.
        self._scores: dict[int, float | None] = {}
        self._faults: dict[int, str] = {}
        self._interrupted: list[int] = []
        self._checked: set[int] = set()  # steps whose files all agree with the manifest
        self._look()

    def __enter__(self):
        return self

    def __exit__(self, _, error, __):
        try:
            self.finish()
        except WriteError as failed:
            error = failed
            raise
        finally:
            self._worker.shutdown()
            if isinstance(error, WriteError):
                error.add_note(self._safe())

    def _safe(self) -> str:
        if not self._scores:
            return "no checkpoint was saved yet, so that the same command begins anew"
        return f"the same command goes on from the checkpoint of step {max(self._scores)}"

    # --- Finding what there is.

    def _look(self):
        if jax.process_index() == 0 and self._keep is not None:
            with writing(self.directory):
                self.directory.mkdir(parents=True, exist_ok=True)
                for path in self.directory.iterdir():
                    if _UNFINISHED in path.name:
                        path.rmtree()
        scores, faults, self._interrupted = multihost.from_process_0(self._found)
        self._scores, self._faults = dict(scores), dict(faults)
        for fault in self._faults.values():
            logging.warning("%s: not used", fault)

    def _found(self) -> tuple[list, list, list[int]]:
        scores, faults, interrupted = [], [], []
        paths = self.directory.iterdir() if self.directory.exists() else ()
        for step in sorted(int(path.name) for path in paths if _is_step(path)):
            folder = self._folder(step)
            try:
                if manifest.sealed(folder):
                    scores.append((step, manifest.metrics(folder).get(self._best_metric)))
                else:
                    interrupted.append(step)
            except (manifest.Damaged, OSError) as error:
                faults.append((step, self._named(step, error)))
        return scores, faults, interrupted

    def _folder(self, step):
        return self.directory / str(step)

    def _named(self, step, fault):
        return f"the checkpoint of step {step} is damaged: {fault}"

    def _whole(self, step) -> bool:
        """Whether all files of a checkpoint are as they were saved; if not, it counts no more."""
        if step in self._scores and step not in self._checked:
            if fault := multihost.from_process_0(lambda: self._fault(step)):
                logging.warning("%s: not used", fault)
                del self._scores[step]
                self._faults[step] = fault
            else:
                self._checked.add(step)
        return step in self._scores

    def _fault(self, step) -> str | None:
        try:
            manifest.check(self._folder(step))
        except (manifest.Damaged, OSError) as error:
            return self._named(step, error)
        return None

    @property
    def steps(self) -> list[int]:
        """Steps of the checkpoints there are, ascending, damaged or not."""
        return sorted(self._scores | self._faults)

    @property
    def best(self) -> int | None:
        """Step of the checkpoint with the best metric, None where none has one."""
        return self._best()[1]

    @property
    def best_value(self) -> float:
        """The best metric, -inf where no checkpoint has one."""
        return self._best()[0]

    def _best(self) -> tuple[float, int | None]:
        scores = [(score, step) for step, score in self._scores.items() if score is not None]
        for score, step in sorted(scores, reverse=True):
            if self._whole(step):
                return score, step
        return -math.inf, None

    def evaluated(self, step: int) -> bool:
        """Whether the checkpoint of `step` has the metrics of an evaluation."""
        return self._scores.get(step) is not None

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
            best = self.best
            if best is None:
                raise ConfigError(f"no checkpoint in {self.directory} has been evaluated")
            return best
        if not name.isdigit() or int(name) not in steps:
            listed = ", ".join(map(str, steps))
            raise ConfigError(f"no checkpoint {name!r} in {self.directory}; there are {listed}")
        return int(name)

    # --- Saving.

    def save(self, step: int, state, metrics: dict | None):
        """Begins to save `state`; it is completed in the background, see `finish`.

        A whole checkpoint of this step stands, as it is of the same state; where it was not
        evaluated, metrics are added to it.

        Args:
          step: finished steps of the run.
          state: pytree of arrays; may be donated as soon as this returns.
          metrics: the evaluation's at this step, if there was one.

        Raises:
          WriteError: it, or the one before, cannot be written; the others are as they were.
        """
        self.finish()
        score = None if metrics is None else metrics[self._best_metric]
        if self._whole(step):
            if score is not None and not self.evaluated(step):
                if jax.process_index() == 0:
                    manifest.add_metrics(self._folder(step), {self._best_metric: score})
                self._scores[step] = score
            return
        with writing(self._folder(step)):
            # What is no checkpoint makes way: a damaged one, or an interrupted save.
            _hush_late_writes()
            response = ocp.save_async(self._folder(step), state, overwrite=True)
        # Completed behind the run's back: a kill must not cost a checkpoint that is on the disk.
        self._pending = self._worker.submit(
            self._complete, response, step, score, self._outdated(step, score)
        )

    def finish(self):
        """Waits for the save in progress and its manifest.

        Raises:
          WriteError: it cannot be written.
        """
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def _outdated(self, step, score) -> list[int]:
        """What may go when `step` is saved: older than those to keep, and not the best."""
        if self._keep is None:
            return []
        oldest = min([*sorted(self._scores)[-self._keep :], step])
        value, best = self._best()
        if score is not None and score >= value:
            best = step
        there = [*self._scores, *self._faults, *self._interrupted]
        return [other for other in there if other < oldest and other != best]

    def _complete(self, response, step, score, outdated):
        with writing(self._folder(step)):
            response.result()
            if jax.process_index() == 0:
                metrics = None if score is None else {self._best_metric: score}
                manifest.seal(self._folder(step), metrics)
        self._faults.pop(step, None)
        self._scores[step] = score
        self._checked.add(step)
        for other in outdated:
            self._scores.pop(other, None)
            self._faults.pop(other, None)
            if jax.process_index() == 0:
                with writing(self._folder(other)):
                    manifest.unseal(self._folder(other))
                    self._folder(other).rmtree()
        self._interrupted = [s for s in self._interrupted if s not in (step, *outdated)]

    # --- Loading.

    def restore(self, abstract_state, *, step: int | None = None) -> Any:
        """Loads the latest whole checkpoint, or that of `step`.

        Args:
          abstract_state: shapes, dtypes and shardings of the state.
          step: a certain checkpoint; else damaged ones are passed over.

        Returns:
          The state, or None where there is no checkpoint at all.

        Raises:
          ConfigError: no checkpoint is whole, or that of `step` is not.
        """
        steps = self.steps if step is None else [step]
        for candidate in steps[::-1]:
            if self._whole(candidate):
                self._say_what_is_passed_over(candidate)
                return self._load(candidate, abstract_state)
        if not steps:
            return None
        remedy = "start anew in another --workdir" if step is None else "choose another step"
        fault = self._faults.get(steps[0], f"there is no checkpoint of step {steps[0]}")
        raise ConfigError(f"{fault}; {remedy}")

    def _say_what_is_passed_over(self, step):
        if interrupted := [other for other in self._interrupted if other > step]:
            logging.warning("saves of steps %s were interrupted: not used", interrupted)
        if self._faults and max(self._faults) > step:
            logging.warning("using the checkpoint of step %d", step)

    def _load(self, step, abstract_state):
        try:
            return ocp.load(self._folder(step), abstract_state=abstract_state)
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"the checkpoint of step {step} in {self.directory} is of another "
                f"model or optimizer than the config's: {error}"
            ) from error


def _is_step(path: epath.Path) -> bool:
    return re.fullmatch("0|[1-9][0-9]*", path.name) is not None and path.is_dir()


@functools.cache
def _hush_late_writes():
    """Drops the stack traces of a failed save's other writes, which TensorStore's threads print.

    Each of them finds the event loop closed that Orbax waited in; the failure itself is raised.
    """
    show = sys.unraisablehook

    def hook(unraisable):
        error = unraisable.exc_value
        if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
            show(unraisable)

    sys.unraisablehook = hook
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
