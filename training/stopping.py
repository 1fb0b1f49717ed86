"""Ending gracefully on SIGTERM (a preempted machine) or SIGINT (Ctrl-C)."""

import signal


class StopSignals:
    """Within it, the first SIGTERM or SIGINT is noted; the second acts as usual.

    Args:
      processes: of this run. With several SIGTERM or SIGINT to any of them stops all, at one point.
    """

    def __init__(self, processes: int = 1):
        self._together = processes > 1

    def __enter__(self):
        self._received = self._asked = 0
        caught = (signal.SIGINT,) if self._together else (signal.SIGTERM, signal.SIGINT)
        self._previous = {number: signal.signal(number, self._note) for number in caught}
        if self._together:
            self._multihost().catch_sigterm()
        return self

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number, _):
        signal.signal(number, self._previous[number])
        if self._together:
            signal.raise_signal(signal.SIGTERM)
        else:
            self._received = number

    @staticmethod
    def _multihost():
        from training import multihost  # else this module needs no jax

        return multihost

    def received(self) -> int:
        """The signal to stop for, or 0; all processes ask it at the same points of the run."""
        if self._together and not self._received:
            # They are made to agree on the number of a question, which need not be a step's.
            self._asked += 1
            if self._multihost().told_to_stop(self._asked):
                self._received = signal.SIGTERM
        return self._received
