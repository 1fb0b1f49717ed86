"""Stopping a run on SIGTERM (a preempted machine) or SIGINT (Ctrl-C) after it has saved."""

import signal

import jax
from jax.experimental import multihost_utils


class StopSignals:
    """Within it, the first SIGTERM or SIGINT is noted; the second acts as usual."""

    def __enter__(self):
        self._received = 0
        self._previous = {
            number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number, _):
        self._received = number
        signal.signal(number, self._previous[number])

    def at(self, step: int) -> int:
        """The signal to stop for after `step`, or 0; all hosts of a pod agree on the step."""
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step):
            return self._received or signal.SIGTERM
        return 0 if jax.process_count() > 1 else self._received
