"""Runs that are killed again and again end as the undisturbed run did."""

import dataclasses
import json
import pathlib
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator

import processes
from soak.victim import PLACES
from training.checkpoints import Checkpoints

VICTIM = "tests/soak/victim.py"
RANDOM = "at a random moment"


@dataclasses.dataclass(frozen=True)
class Job:
    """A run of seconds.

    Attributes:
      config: its file.
      last: its steps.
      best_metric: of its task.
      arguments: for train.py besides.
      optimized: whether XLA optimises, as for its users.
    """

    config: str
    last: int
    best_metric: str
    arguments: tuple[str, ...] = ()
    optimized: bool = False

    def start(self, workdir, *before, script="train.py"):
        """Starts train.py, or another script that takes its arguments after `before`."""
        config = () if script == "train.py" else ("--config", self.config)
        return processes.start(
            workdir,
            *config,
            *self.arguments,
            config=self.config,
            script=script,
            optimized=self.optimized,
            before=before,
        )


def _real(config, metric, eval_every_epochs, split):
    fields = {
        "steps": 24,
        "log_every_steps": 2,
        "checkpoint_every_steps": 5,
        "eval_every_epochs": eval_every_epochs,
        "data.eval_split": split,
    }
    arguments = tuple(f"--config.{name}={value}" for name, value in fields.items())
    return Job(config, 24, metric, arguments, optimized=True)


TINY = (
    Job("tests/tiny.py", 12, "top1"),
    Job("tests/tiny_detection.py", 6, "AP"),
    Job("tests/tiny_segmentation.py", 6, "mIoU"),
)
REAL = (
    _real("configs/mnist_resnet.py", "top1", 0.2, "test[:100]"),
    _real("configs/scenes_retinanet.py", "AP", 0.03, "test[:16]"),
    _real("configs/scenes_fcn.py", "mIoU", 0.03, "test[:16]"),
)


def undisturbed(job: Job, folder: pathlib.Path) -> pathlib.Path:
    """The run that nothing disturbs."""
    processes.finish(job.start(folder))
    return folder


def signal_at(job: Job, workdir, place: str, number: int, draw: random.Random, call=None) -> bool:
    """Starts or goes on with a run that a signal meets at a place; False where it came to its end.

    Raises:
      AssertionError: it ended otherwise.
    """
    if place == RANDOM:
        process = job.start(workdir)
        _wait_until_it_trains(process, workdir)
        time.sleep(draw.uniform(0.0, 1.0))
        process.send_signal(number)
    else:
        call = call or draw.choice((1, 1, 2, 3))
        at = f"--at={place},{call},{draw.uniform(0, PLACES[place][1]):.4f},{int(number)}"
        process = job.start(workdir, at, script=VICTIM)
    out, err = processes.end(process)
    allowed = (0, -signal.SIGKILL) if number == signal.SIGKILL else (0, 143, -signal.SIGTERM)
    assert process.returncode in allowed, f"exit code {process.returncode}\n{out}\n{err}"
    assert "Traceback" not in err, err
    return process.returncode != 0


def _wait_until_it_trains(process, workdir):
    lines = _lines(workdir)
    while process.poll() is None and _lines(workdir) in (0, lines):
        time.sleep(0.02)


def _lines(workdir) -> int:
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def differences(job: Job, workdir, whole) -> list[str]:
    """In what a finished run differs from the undisturbed one."""
    parts: dict[str, Callable] = {
        "metrics": processes.untimed,
        "result": _result,
        "final arrays": lambda folder: processes.state(folder, job.last),
        "best arrays": lambda folder: _best(job, folder),
    }
    return [name for name, part in parts.items() if part(workdir) != part(whole)]


def _result(workdir):
    result = json.loads((workdir / "result.json").read_text())
    return {name: result[name] for name in ("final", "best", "best_metric", "kept")}


def _best(job, workdir):
    with Checkpoints(
        workdir / "checkpoints", keep=None, best_metric=job.best_metric
    ) as checkpoints:
        return checkpoints.best, processes.state(workdir, checkpoints.best)


def soak(job: Job, folder: pathlib.Path, kills: int, seed: int) -> Iterator:
    """Disturbs runs of a job so many times.

    A run is disturbed until it comes to its end, then compared, and another one begun.

    Yields:
      `(moment, failure or None)` of each.
    """
    draw = random.Random(seed)
    whole = undisturbed(job, folder / "whole")
    moments = [(place, signal.SIGKILL) for place in (RANDOM, *PLACES)]
    moments += [(RANDOM, signal.SIGTERM), ("in an evaluation", signal.SIGTERM)]
    queue: list = []
    done = runs = tries = 0
    while done < kills:
        workdir, runs = folder / f"run{runs}", runs + 1
        hit, finished = [], False
        try:
            while not finished and done < kills and len(hit) < 6:
                queue = queue or draw.sample(moments, len(moments))
                place, number = queue.pop()
                finished = not signal_at(job, workdir, place, number, draw)
                tries += 1
                assert tries < 20 * kills, "nothing is hit"
                if not finished:
                    done += 1
                    hit.append(f"{signal.Signals(number).name} {place}")
            processes.finish(job.start(workdir))
            found = differences(job, workdir, whole)
            failure = f"{workdir} differs from {whole} in {', '.join(found)}" if found else None
        except AssertionError as error:
            failure = f"{workdir}: {error}"
        for moment in hit or (["no moment"] if failure else []):
            yield moment, failure
        if failure is None:
            shutil.rmtree(workdir)
