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
    """A bar with ETA on a terminal; else a plain line for each logged record.

    Args:
      total: steps of the run.
    """

    def __init__(self, total: int):
        self._console = rich.console.Console(highlight=False)
        self._total = total
        self._enabled = jax.process_index() == 0
        self._live = self._enabled and self._console.is_terminal
        columns = (
            rich.progress.BarColumn(bar_width=24),
            rich.progress.TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            rich.progress.TextColumn("ETA"),
            rich.progress.TimeRemainingColumn(elapsed_when_finished=True),
            rich.progress.TextColumn("{task.description}"),
        )
        self._bar = rich.progress.Progress(
            *columns, console=self._console, disable=not self._live, speed_estimate_period=60
        )
        self._task = self._bar.add_task("starting", total=total)

    def __enter__(self):
        self._bar.start()
        return self

    def __exit__(self, *_):
        self._bar.stop()

    def print(self, text: str):
        """Prints a line, above the bar where there is one."""
        if self._enabled:
            self._bar.console.print(text, markup=False, soft_wrap=True)

    @contextlib.contextmanager
    def compiling(self, what: str) -> Iterator[None]:
        """Says that `what` is being compiled, and afterwards how long that took."""
        began, text = time.monotonic(), f"compiling {what}"
        if self._live:
            self._bar.update(self._task, description=text, refresh=True)
        else:
            self.print(text)
        yield
        self._bar.update(self._task, description="")
        self.print(f"compiled {what} in {time.monotonic() - began:.1f} s")

    def begin(self, step: int):
        """Puts the bar, and the clock of its ETA, where the run begins or goes on."""
        self._bar.reset(self._task, completed=step)

    def step(self, step: int):
        """Moves the bar."""
        self._bar.update(self._task, completed=step)

    def log(self, record: dict):
        """Shows a record: beside the bar, or as a line."""
        parts = [
            form.format(record[name])
            for name, form in (
                ("train/loss", "loss {:.4f}"),
                ("sched/keep_prob", "keep_prob {:.3f}"),
                ("time/images_per_second", "{:.0f} images/s"),
                ("time/step_ms", "{:.0f} ms/step"),
                ("time/input_wait_ms", "input wait {:.0f} ms"),
                ("time/host_ms", "host {:.0f} ms"),
            )
            if name in record
        ]
        parts += [  # but for those of single classes, "eval/AP/cat"
            f"{name} {value:.2f}"
            for name, value in record.items()
            if name.startswith("eval/") and name.count("/") == 1
        ]
        if self._live:
            self._bar.update(self._task, description="  ".join(parts))
            return
        left = (self._total - record["step"]) * record.get("time/step_ms", 0.0)
        if left:  # of the steps alone: how long an evaluation takes is not known
            parts.append(f"ETA {datetime.timedelta(seconds=round(left / 1e3))}")
        epoch = f"epoch {record['epoch']:.2f}"
        self.print("  ".join([f"step {record['step']}/{self._total}", epoch, *parts]))
