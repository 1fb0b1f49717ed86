"""What a run tells: metrics.jsonl, TensorBoard, a progress bar or plain lines."""

import json
import os
import pathlib
import time

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
      first: steps that are already done.
      batch_size: global, for images a second.
    """

    def __init__(self, total: int, first: int, batch_size: int):
        self._console = rich.console.Console(highlight=False)
        self._total, self._batch_size = total, batch_size
        self._enabled = jax.process_index() == 0
        self._live = self._enabled and self._console.is_terminal
        self._start, self._start_step = None, first
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
        self._task = self._bar.add_task("compiling", total=total, completed=first)

    def __enter__(self):
        self._bar.start()
        return self

    def __exit__(self, *_):
        self._bar.stop()

    def print(self, text: str):
        """Prints a line, above the bar where there is one."""
        if self._enabled:
            self._bar.console.print(text, markup=False, soft_wrap=True)

    def images_per_second(self, step: int) -> float:
        """Since the last `resume`; 0 before the first, when the step was being compiled."""
        if self._start is None:
            return 0.0
        seconds = max(time.monotonic() - self._start, 1e-9)
        return (step - self._start_step) * self._batch_size / seconds

    def resume(self, step: int):
        """Starts the clock of `images_per_second`: what lay before is evaluation or saving."""
        self._start, self._start_step = time.monotonic(), step

    def step(self, step: int):
        """Moves the bar."""
        self._bar.update(self._task, completed=step)

    def log(self, record: dict):
        """Shows a record: beside the bar, or as a line."""
        parts = []
        for name, form in (
            ("train/loss", "loss {:.4f}"),
            ("sched/keep_prob", "keep_prob {:.3f}"),
            ("time/images_per_second", "{:.0f} images/s"),
        ):
            if name in record:
                parts.append(form.format(record[name]))
        parts += [  # but for those of single classes, "eval/AP/cat"
            f"{name} {value:.2f}"
            for name, value in record.items()
            if name.startswith("eval/") and name.count("/") == 1
        ]
        text = "  ".join(parts)
        if self._live:
            self._bar.update(self._task, description=text)
        else:
            self.print(f"step {record['step']}/{self._total}  epoch {record['epoch']:.2f}  {text}")
