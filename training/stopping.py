"""Ending gracefully on SIGTERM (a preempted machine) or SIGINT (Ctrl-C)."""

import signal


class StopSignals:
    """Within it, the first SIGTERM or SIGINT is noted; the second acts as usual.

    Args:
      processes: of this run. With several jax itself catches SIGTERM, and makes all of them stop at
        one point.
    """

    def __init__(self, processes: int = 1):
        self._together = processes > 1

    def __enter__(self):
        self._received = self._asked = 0
        caught = () if self._together else (signal.SIGTERM, signal.SIGINT)
        self._previous = {number: signal.signal(number, self._note) for number in caught}
        return self

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number, _):
        self._received = number
        signal.signal(number, self._previous[number])

    def received(self) -> int:
        """The signal to stop for, or 0; all processes ask it at the same points of the run."""
        if self._together and not self._received:
            from jax.experimental import multihost_utils  # else this module needs no jax

            # They are made to agree on the number of a question, which need not be a step's.
            self._asked += 1
            if multihost_utils.reached_preemption_sync_point(self._asked):
                self._received = signal.SIGTERM
        return self._received
