"""Stopping a run on SIGTERM (a preempted machine) or SIGINT (Ctrl-C) after it has saved."""

import signal

import jax
from jax.experimental import multihost_utils


class StopSignals:
    """Within it, the first SIGTERM or SIGINT is noted; the second acts as usual.

    With several hosts jax itself catches SIGTERM, and makes all of them stop at one step.
    """

    def __enter__(self):
        self._received = 0
        caught = () if jax.process_count() > 1 else (signal.SIGTERM, signal.SIGINT)
        self._previous = {number: signal.signal(number, self._note) for number in caught}
        return self

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number, _):
        self._received = number
        signal.signal(number, self._previous[number])

    def at(self, step: int) -> int:
        """The signal to stop for after `step`, or 0; to be asked after every step."""
        if jax.process_count() > 1:
            return signal.SIGTERM if multihost_utils.reached_preemption_sync_point(step) else 0
        return self._received
