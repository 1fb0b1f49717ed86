"""How far a prediction of many images is."""

import datetime
import time

import rich.console
import rich.progress

_PAUSE_SECONDS = 10.0  # between plain lines


class Progress:
    """A bar with the rate and ETA on a terminal; else a plain line now and then.

    The rate is that of all images but those of the first batch, in which it is compiled.

    Args:
      total: images.
      enabled: whether this process is the one that tells.
    """

    def __init__(self, total: int, *, enabled: bool = True):
        self._total, self._enabled, self._done = total, enabled, 0
        self._console = rich.console.Console(highlight=False)
        self._live = enabled and self._console.is_terminal
        self._bar = rich.progress.Progress(
            rich.progress.BarColumn(bar_width=24),
            rich.progress.TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            rich.progress.TextColumn("{task.description}"),
            console=self._console,
            disable=not self._live,
        )
        self._task = self._bar.add_task("reading and compiling", total=total)
        self._first: tuple[int, float] | None = None
        self._told = time.monotonic()

    def __enter__(self):
        self._bar.start()
        return self

    def __exit__(self, *_):
        self._bar.stop()

    def print(self, text: str):
        """Prints a line, above the bar where there is one."""
        if self._enabled:
            self._bar.console.print(text, markup=False, soft_wrap=True)

    def step(self, done: int):
        """Moves the bar; `done` images are done, a batch or a part of it more than before."""
        now = time.monotonic()
        if self._first is None:
            self._first = done, now
        self._bar.update(self._task, completed=done, description=self._rate(done, now))
        if not self._live and now - self._told > _PAUSE_SECONDS and done < self._total:
            self._told = now
            self.print(f"{done}/{self._total} images  {self._rate(done, now)}".rstrip())

    def _rate(self, done: int, now: float) -> str:
        first, began = self._first or (done, now)
        if now - began < 1:  # within the first batch, say
            return ""
        rate = (done - first) / (now - began)
        left = datetime.timedelta(seconds=round((self._total - done) / rate))
        return f"{rate:.1f} images/s  ETA {left}"
