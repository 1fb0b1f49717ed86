"""What a run tells: metrics.jsonl, TensorBoard, a progress bar or plain lines."""

import contextlib
import datetime
import json
import os
import pathlib
import time
from collections.abc import Iterator

import jax
import numpy as np
import rich.console
import rich.progress
from PIL import Image

from training import records
from training.events import Events
from training.files import write, writing
from training.timing import Pace


class MetricsLog:
    """`metrics.jsonl`, one line a logging step, and the same numbers as TensorBoard events.

    Lines of steps after `resume_step` are cut off when it is opened: those steps run again. Only
    process 0 writes.

    Args:
      workdir: where the file and the events go.
      resume_step: the step that the run goes on from, 0 for a new one.
    """

    def __init__(self, workdir: pathlib.Path, resume_step: int):
        self.records = []
        self._enabled = jax.process_index() == 0
        if not self._enabled:
            return
        self._path = workdir / "metrics.jsonl"
        if self._path.exists():
            found, damaged = records.read(self._path)
            self.records = [record for record in found if record["step"] <= resume_step]
            if damaged:
                records.keep_aside(self._path, damaged)
        self._file = self._rewritten()
        self._events = Events(workdir / "tensorboard", resume_step + 1 if resume_step else None)

    def _rewritten(self):
        write(self._path, "".join(json.dumps(record) + "\n" for record in self.records))
        return self._path.open("a", buffering=1)  # a line at a time, for tail -f

    def write(self, record: dict):
        """Adds one line, that of `record["step"]`; what the last line lacked is added to it."""
        if not self._enabled:
            return
        if self.records and self.records[-1]["step"] == record["step"]:
            self.records[-1] = self.records[-1] | record
            self._file.close()
            self._file = self._rewritten()
        else:
            self.records.append(record)
            with writing(self._path):
                self._file.write(json.dumps(record) + "\n")
        for name, value in record.items():
            if name != "step":
                self._events.scalar(name, value, record["step"])

    def evaluated(self, step: int, metric: str) -> bool:
        """Whether the last line is that of `step`, with an evaluation."""
        last = self.records[-1] if self.records else {"step": None}
        return last["step"] == step and f"eval/{metric}" in last

    def picture(self, name: str, path: pathlib.Path, step: int):
        """Adds an image file to TensorBoard."""
        if self._enabled:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
            self._events.picture(name, pixels, step)

    def flush(self):
        """Puts all lines on the disk: a checkpoint that follows must not be ahead of them."""
        if self._enabled:
            with writing(self._path):
                self._file.flush()
                os.fsync(self._file.fileno())
            self._events.flush()

    def close(self):
        if self._enabled:
            self._events.close()
            with writing(self._path):
                self._file.close()


class Progress:
    """A bar with ETA on a terminal, else plain lines: what is being done, and what comes of it.

    Args:
      total: steps of the run.
      batch_size: global, for images a second.
      unit: what is counted instead of steps.
      stderr: where to, instead of the output.
    """

    def __init__(
        self, total: int, *, batch_size: int = 1, unit: str = "step", stderr: bool = False
    ):
        self._console = rich.console.Console(highlight=False, stderr=stderr)
        self._total, self._batch_size, self._unit = total, batch_size, unit
        self._enabled = jax.process_index() == 0
        self._live = self._enabled and self._console.is_terminal
        columns = (
            rich.progress.SpinnerColumn("line", finished_text=""),
            rich.progress.BarColumn(bar_width=24),
            rich.progress.TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            rich.progress.TextColumn("{task.fields[eta]}"),
            rich.progress.TextColumn("{task.description}"),
        )
        self._bar = rich.progress.Progress(*columns, console=self._console, disable=not self._live)
        self._task = self._bar.add_task("starting", total=total, eta="")
        self._said: dict = {}  # the last record that was shown
        self.begin(0)

    def __enter__(self):
        self._bar.start()
        return self

    def __exit__(self, *_):
        self._bar.stop()

    def print(self, text: str):
        """Prints a line, above the bar where there is one."""
        if self._enabled:
            self._bar.console.print(text, markup=False, soft_wrap=True)
            self._printed = time.monotonic()

    @contextlib.contextmanager
    def doing(self, what: str, done: str | None = None, *, again: bool = False) -> Iterator[None]:
        """Says what is being done besides the steps.

        Args:
          what: it, as "compiling the training step".
          done: said afterwards, with the time it took, as "compiled the training step".
          again: see `Pace.stopped`; what is done again and again is no line of its own.
        """
        began = time.monotonic()
        self._wait = _WAIT
        if self._live:
            self._bar.update(self._task, description=what, refresh=True)
        elif not again:
            self.print(what)
        with self._pace.stopped(again=again):
            yield
        if done is not None:
            self.print(f"{done} in {time.monotonic() - began:.1f} s")
        self._wait = _WAIT
        self._show()

    def compiling(self, what: str) -> contextlib.AbstractContextManager:
        """Says that `what` is being compiled, and afterwards how long that took."""
        return self.doing(f"compiling {what}", f"compiled {what}")

    def evaluating(self, done: int, total: int):
        """Says how many examples of an evaluation are done."""
        text = f"evaluating {done}/{total}"
        if self._live:
            self._bar.update(self._task, description=text)
        else:
            self._remind(text)

    def begin(self, step: int):
        """Puts the bar, and the clock of rates and ETA, where the run begins or goes on."""
        self._pace = Pace(step, self._total, self._batch_size)
        self._done = self._first = step
        self._wait, self._printed = _WAIT, time.monotonic()
        self._bar.reset(self._task, completed=step, eta="")

    def step(self, step: int):
        """Moves the bar to the steps that are done."""
        self._done = step
        self._show()
        if not self._live and not self._said and step > self._first:
            self._remind("  ".join([f"{self._unit} {step}/{self._total}", *self._speed()]))

    def log(self, record: dict):
        """Shows a record: beside the bar, or as a line; an evaluation as a line in any case."""
        self._done, self._said = record["step"], record
        evaluated = [  # but for those of single classes, "eval/AP/cat"
            f"{name} {_number(name, value)}"
            for name, value in record.items()
            if name.startswith("eval/") and name.count("/") == 1
        ]
        self._show()
        if self._live and not evaluated:
            return
        parts = [f"step {record['step']}/{self._total}", f"epoch {record['epoch']:.2f}"]
        parts += [form(record[name]) for name, form in _SHOWN.items() if name in record]
        self.print("  ".join([*parts, *evaluated, *self._speed()[1:]]))

    def _show(self):
        """What stands beside the bar: the last record, but the speed as it is now."""
        if not self._live:
            return
        said = [_SHOWN[name](self._said[name]) for name in _BESIDE if name in self._said]
        rate, *eta = self._speed() or [""]
        self._bar.update(
            self._task,
            completed=self._done,
            eta="".join(eta),
            description="  ".join([*said, rate]) if self._done < self._total else "",
        )

    def _speed(self) -> list[str]:
        """Images a second and ETA, while there is something to say."""
        rate = self._pace.images_per_second(self._done)
        left = self._pace.seconds_left(self._done)
        if rate is None or left is None:
            return []
        parts = [_rate(rate)]
        if left:
            parts.append(f"ETA {datetime.timedelta(seconds=round(left))}")
        return parts

    def _remind(self, text: str):
        """Prints a line if there was none for some time, more and more rarely."""
        if time.monotonic() >= self._printed + self._wait:
            self.print(text)
            self._wait *= 2


def _rate(images_per_second: float) -> str:
    """In whole numbers, but where little would be left of it."""
    return f"{images_per_second:{'.0f' if images_per_second >= 10 else '.2g'}} images/s"


def _number(name: str, value: float) -> str:
    """Of a metric: a count, a loss, or a percentage."""
    if isinstance(value, int):
        return str(value)
    return f"{value:.4f}" if name.endswith("loss") else f"{value:.2f}"


_WAIT = 10.0  # seconds without a line, at first
_SHOWN = {
    "train/loss": "loss {:.4f}".format,
    "sched/keep_prob": "keep_prob {:.3f}".format,
    "time/images_per_second": _rate,
    "time/step_ms": "{:.0f} ms/step".format,
    "time/input_wait_ms": "input wait {:.0f} ms".format,
    "time/host_ms": "host {:.0f} ms".format,
}
_BESIDE = ("train/loss", "sched/keep_prob")
