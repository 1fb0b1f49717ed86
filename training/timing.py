"""Where the time of training goes, how fast it is, and how long the rest takes."""

import contextlib
import time
from collections.abc import Iterator
from typing import NamedTuple


class Times(NamedTuple):
    """Of some steps.

    Attributes:
      steps: their number.
      seconds: from the start of the first to the end of the last.
      data: seconds of these in which the loop waited for the next batch.
      devices: seconds in which it waited for the devices to finish a step.
    """

    steps: float = 0
    seconds: float = 0.0
    data: float = 0.0
    devices: float = 0.0

    @property
    def host(self) -> float:
        """Seconds of neither: moving batches, handing steps over, and what Python does besides."""
        return self.seconds - self.data - self.devices


class Timing:
    """The clock of the loop.

    Steps run on the devices while the host prepares the next one, so where the devices are the
    limit it is the wait for them that fills a step, and where data is, the wait for that.

    Args:
      batch_size: global, for images a second.
    """

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self._total = Times()
        self.start(0)

    def start(self, step: int):
        """Starts the clock at a step: what lay before is compiling, evaluation or saving."""
        self._began, self._first = time.monotonic(), step
        self._waits = {"data": 0.0, "devices": 0.0}

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Around what waits for "data" or for "devices"."""
        began = time.monotonic()
        yield
        self._waits[what] += time.monotonic() - began

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Around what is no part of the steps, though it lies between them."""
        began = time.monotonic()
        yield
        self._began += time.monotonic() - began

    def record(self, step: int) -> dict[str, float]:
        """Ends the steps since `start`; their means, under the names of metrics.jsonl."""
        now = Times(step - self._first, time.monotonic() - self._began, **self._waits)
        self._total = Times(*map(sum, zip(self._total, now, strict=True)))
        seconds = max(now.seconds, 1e-9)
        return {
            "time/images_per_second": now.steps * self._batch_size / seconds,
            "time/step_ms": 1e3 * seconds / now.steps,
            "time/input_wait_ms": 1e3 * now.data / now.steps,
            "time/host_ms": 1e3 * now.host / now.steps,
        }

    def verdict(self) -> str:
        """One sentence: what limits the run, with the figures, of all steps that were recorded."""
        total = self._total
        if not total.steps:
            return "no step was timed"
        parts = {"data": total.data, "compute": total.devices, "the host": total.host}
        limit = max(parts, key=lambda name: parts[name])
        advice = {
            "data": "; more data.num_threads, or data.num_workers, may help where cores are idle",
            "compute": "",
            "the host": "; a larger batch_size leaves it less to do",
        }
        data, compute, host = (1e3 * seconds / total.steps for seconds in parts.values())
        return (
            f"{limit} is the limit: of {data + compute + host:.1f} ms a step, {compute:.1f} ms "
            f"waited for the devices, {data:.1f} ms for data, and {host:.1f} ms were the host's own"
            f"{advice[limit]}"
        )


class Pace:
    """How fast steps are since a run began or went on, and how long the rest takes.

    Args:
      step: the one it begins at.
      total: steps of the run.
      batch_size: global, for images a second.
    """

    def __init__(self, step: int, total: int, batch_size: int):
        self._first, self._total, self._batch_size = step, total, batch_size
        self._steps_began = self._run_began = time.monotonic()

    @contextlib.contextmanager
    def stopped(self, *, again: bool = False) -> Iterator[None]:
        """Around what is no step, as evaluating is, which the rest has too, or compiling.

        Args:
          again: whether there will be more of it; what is done once does not count at all.
        """
        began, steps_began = time.monotonic(), self._steps_began
        yield
        # Without what has been stopped within it.
        seconds = time.monotonic() - began - (self._steps_began - steps_began)
        self._steps_began += seconds
        if not again:
            self._run_began += seconds

    def images_per_second(self, step: int) -> float | None:
        """Of the steps that are done; None while there is none."""
        seconds = time.monotonic() - self._steps_began
        done = step - self._first
        return done * self._batch_size / seconds if done > 0 and seconds > 0 else None

    def seconds_left(self, step: int) -> float | None:
        """If the rest goes as what is done; None while nothing is."""
        done = step - self._first
        seconds = time.monotonic() - self._run_began
        return (self._total - step) * seconds / done if done > 0 else None
