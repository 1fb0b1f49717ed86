"""A trace of a few training steps, for TensorBoard's or XProf's viewer."""

import contextlib
import pathlib
from typing import Any

import jax

# Steps after the start that are not traced, until everything is warm; and those that are.
_SKIPPED, _TRACED = 3, 5


class Trace(contextlib.AbstractContextManager):
    """Within it, the steps from the fourth to the eighth after the start are traced.

    Args:
      folder: where the trace goes; None: nothing is traced.
      first: the step that the run starts from.
      report: `report(text)` is told where the trace is.
    """

    def __init__(self, folder: pathlib.Path | None, first: int, report=print):
        self._folder, self._report = folder, report
        self._first, self._end = first + _SKIPPED, first + _SKIPPED + _TRACED
        self._traced = 0  # the last step of the trace that is being taken, or 0

    def step(self, step: int, pending: Any):
        """The context of the step after `step` steps, of which `pending` is a result."""
        if self._folder is not None:
            if step == self._first:
                jax.block_until_ready(pending)  # else what was asked for before is seen too
                jax.profiler.start_trace(self._folder)
            if self._first <= step < self._end:
                self._traced = step + 1
            if step == self._end:
                self.stop(pending)
        return jax.profiler.StepTraceAnnotation("train", step_num=step + 1)

    def stop(self, pending: Any = None):
        """Ends the trace, if one is being taken, when the devices have finished its steps."""
        if self._traced:
            jax.block_until_ready(pending)
            jax.profiler.stop_trace()
            self._report(
                f"traced steps {self._first + 1} to {self._traced} into {self._folder}: see them "
                f"with `xprof --logdir {self._folder}`, or TensorBoard and its profile plugin"
            )
            self._traced = 0

    def __exit__(self, *_):
        self.stop()
