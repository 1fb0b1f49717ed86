"""How far a sweep is: a bar with ETA on a terminal, a line for each run elsewhere."""

import time

import rich.console
import rich.progress


class Progress:
    """Follows runs by what their folders hold.

    Args:
      runs: all that are to be done, some of them perhaps in part; see `runner.Run`.
    """

    def __init__(self, runs):
        self._fractions = {run.name: run.fraction() for run in runs}
        self._began = time.monotonic()
        self._first = sum(self._fractions.values())  # what is done costs no time
        self._console = rich.console.Console(highlight=False)
        columns = (
            rich.progress.BarColumn(bar_width=24),
            rich.progress.TextColumn("{task.fields[done]}/{task.fields[runs]} runs"),
            rich.progress.TextColumn("ETA {task.fields[eta]}"),
            rich.progress.TextColumn("{task.description}"),
        )
        self._bar = rich.progress.Progress(
            *columns, console=self._console, disable=not self._console.is_terminal
        )
        self._task = self._bar.add_task(
            "",
            total=len(self._fractions),
            completed=self._first,
            runs=len(self._fractions),
            done=self._done(),
            eta="-",
        )

    def __enter__(self):
        self._bar.start()
        if self._done():
            self.print(f"{self._done()} of {len(self._fractions)} runs are finished already")
        return self

    def __exit__(self, *_):
        self._bar.stop()

    def print(self, text: str):
        """Prints a line, above the bar where there is one."""
        self._bar.console.print(text, markup=False, soft_wrap=True)

    def begun(self, run):
        """A run's process was started."""
        self._bar.update(self._task, description=run.name)

    def update(self, run):
        """Looks how far `run` is."""
        self._fractions[run.name] = run.fraction()
        completed = sum(self._fractions.values())
        self._bar.update(self._task, completed=completed, done=self._done(), eta=self.eta())

    def finished(self, run):
        """A run's process has ended."""
        self.update(run)
        result = run.result()
        if result is None:
            return
        metric = result["best_metric"]
        self.print(
            f"[{self._done()}/{len(self._fractions)}] {run.name}: best {metric} "
            f"{result['best'][metric]:.2f}, {result['seconds']:.0f} s; ETA {self.eta()}"
        )

    def eta(self) -> str:
        """Time left, at the pace so far."""
        completed = sum(self._fractions.values())
        if completed <= self._first:
            return "-"
        pace = (time.monotonic() - self._began) / (completed - self._first)
        minutes = round(pace * (len(self._fractions) - completed) / 60)
        return f"{minutes // 60}:{minutes % 60:02}" if minutes else "< 1 min"

    def _done(self) -> int:
        return sum(fraction == 1 for fraction in self._fractions.values())
