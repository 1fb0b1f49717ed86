"""Many runs of `train.py`, one after another, that survive being killed.

An experiment is a list of rows; a run is a row with a seed, in `WORKDIR/<row>/seed<seed>`. The same
command goes on where it was stopped: a run that has its `result.json` is not run again, one that
has not goes on from its checkpoint. `--shard i/n` takes every n-th run, for other devices or hosts.
A finished run of another row or experiment in this WORKDIR that has the same config is not run
again either: its folder is linked.
"""

import argparse
import contextlib
import dataclasses
import fcntl
import functools
import json
import os
import pathlib
import re
import subprocess
import sys
import time
from typing import Any

from experiments.progress import Progress
from training import config as config_lib
from training import records
from training.compilation import cache_under
from training.files import write
from training.result import read as read_result
from training.stopping import StopSignals

ROOT = pathlib.Path(__file__).parent.parent


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a table or one point of a figure.

    Attributes:
      name: also of its folder.
      variant: of the config.
      overrides: `{field: value}` besides.
      paper: `{metric: (mean, spread or None)}`, what the paper has for it.
      note: said beside it in the table.
    """

    name: str
    variant: str
    overrides: dict[str, Any] = dataclasses.field(default_factory=dict)
    paper: dict[str, tuple[float, float | None]] = dataclasses.field(default_factory=dict)
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Run:
    """A row with a seed: where it is, and the arguments of `train.py` that make it."""

    row: Row
    seed: int
    workdir: pathlib.Path
    arguments: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.row.name}/seed{self.seed}"

    @functools.cached_property
    def config(self) -> dict:
        """What its arguments say, as `run.json` holds it."""
        return json.loads(config_lib.to_json(config_lib.from_words(self.arguments)))

    def result(self) -> dict | None:
        """Its `result.json`, None while it is not finished."""
        path = self.workdir / "result.json"
        return read_result(path) if path.exists() else None

    def fraction(self) -> float:
        """How much of it is done, 0 to 1; 1 only with its result."""
        if (self.workdir / "result.json").exists():
            return 1.0
        try:
            config = json.loads((self.workdir / "config.json").read_text())
            last = records.read(self.workdir / "metrics.jsonl")[0][-1]
            by_steps = config["epochs"] is None
            done = last["step"] / config["steps"] if by_steps else last["epoch"] / config["epochs"]
        except (FileNotFoundError, IndexError, KeyError, TypeError, ValueError):
            return 0.0
        return min(done, 0.999)


def parser(
    description: str | None, workdir: str, *, seeds=(0, 1, 2), model="resnet"
) -> argparse.ArgumentParser:
    """The options that all experiments share; see `parse`. `--dataset` is a config of `model`."""
    options = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Any --config.FIELD=VALUE is given to every run; a row's own fields come after it.",
        allow_abbrev=False,
    )
    options.add_argument(
        "--dataset",
        default="imagenet",
        help=f"a config: {', '.join(_configs(model))}, or a file; "
        "another set of such images by --config.data.name",
    )
    options.set_defaults(model=model)
    options.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path(workdir))
    options.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    options.add_argument("--rows", nargs="+", help="only these, in what is written too")
    options.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="ROW:FIELD=VALUE",
        help="a field of one row, such as dropblock:drop.keep_prob=0.8",
    )
    options.add_argument("--shard", default="0/1", help="i/n: of all runs, every n-th from i on")
    options.add_argument("--collect", action="store_true", help="run nothing, write what there is")
    return options


def parse(options: argparse.ArgumentParser, argv: list[str] | None = None) -> argparse.Namespace:
    """Parses an experiment's arguments; `flags` holds what every run is given."""
    arguments, rest = options.parse_known_args(argv)
    flags = []
    for word in rest:
        if word.startswith("--config."):
            flags.append(word)
        elif flags and "=" not in flags[-1] and not word.startswith("--"):
            flags[-1] += f"={word}"  # --config.epochs 80
        else:
            options.error(f"unrecognized argument: {word}")
    for flag in flags:
        if "=" not in flag:
            options.error(f"{flag} needs a value: {flag}=VALUE")
        if flag.startswith("--config.seed="):
            options.error("the seeds are given by --seeds")
    matched = re.fullmatch(r"(\d+)/(\d+)", arguments.shard)
    if not matched or int(matched[1]) >= int(matched[2]):
        options.error(f"--shard must be i/n with i from 0 to n - 1, got {arguments.shard}")
    arguments.shard = int(matched[1]), int(matched[2])
    arguments.whole = arguments.collect or arguments.shard[1] == 1
    arguments.config = config_path(arguments.dataset, arguments.model)
    if not arguments.config.exists():
        options.error(f"--dataset {arguments.dataset}: there is no {arguments.config}")
    arguments.flags = flags
    return arguments


def config_path(dataset: str, model: str = "resnet") -> pathlib.Path:
    """The config file that `--dataset` names, of a network of this kind."""
    if dataset.endswith(".py"):
        path = pathlib.Path(dataset)
        return path if path.exists() else ROOT / path
    return _configs(model).get(dataset, ROOT / "configs" / f"{dataset}_{model}.py")


def _configs(model: str) -> dict[str, pathlib.Path]:
    """The configs of a kind of network, by data set: configs/imagenet_resnet50.py is "imagenet"."""
    paths = sorted((ROOT / "configs").glob(f"*_{model}*.py"))
    return {path.stem.split(f"_{model}")[0]: path for path in paths}


def make_runs(rows: list[Row], arguments: argparse.Namespace) -> list[Run]:
    """All runs, seed by seed, so that rows can be compared before the last seed is done.

    Finished runs of the same configs that are in the workdir under other names are linked.

    Raises:
      SystemExit: `--rows` or `--set` names a row that is not there, a field is none of the
        config's, or a run's folder holds a run of another config.
    """
    names = [row.name for row in rows]
    extra: dict[str, list[str]] = {name: [] for name in names}
    for setting in arguments.set:
        matched = re.fullmatch(r"([^:]+):([^:=]+=.*)", setting)
        if not matched or matched[1] not in extra:
            sys.exit(f"error: --set {setting}: expected ROW:FIELD=VALUE, ROW one of {names}")
        extra[matched[1]].append(f"--config.{matched[2]}")
    for name in arguments.rows or []:
        if name not in extra:
            sys.exit(f"error: --rows {name}: there is no such row; there are {', '.join(names)}")
    chosen = [row for row in rows if not arguments.rows or row.name in arguments.rows]
    workdir = arguments.workdir.absolute()
    runs = [
        Run(
            row,
            seed,
            workdir / row.name / f"seed{seed}",
            (
                f"--config={arguments.config}:{row.variant}",
                *arguments.flags,
                *(f"--config.{field}={value}" for field, value in row.overrides.items()),
                *extra[row.name],
                f"--config.seed={seed}",
            ),
        )
        for seed in arguments.seeds
        for row in chosen
    ]
    for run in runs:
        _check_same(run)
        _link(run)
    return runs


def shard_of(runs: list[Run], shard: tuple[int, int]) -> list[Run]:
    """A shard's runs."""
    return runs[shard[0] :: shard[1]]


def run_all(runs: list[Run], shard: tuple[int, int] = (0, 1), *, script=ROOT / "train.py") -> int:
    """Trains what is not finished of a shard of `runs`.

    Args:
      runs: of all shards.
      shard: which, of how many.
      script: what trains; it takes `train.py`'s arguments and exit codes.

    Returns:
      0, 1 where a run failed, or 128 + the number of the signal that stopped it.

    Raises:
      SystemExit: bad input, in one sentence.
    """
    mine = shard_of(runs, shard)
    failed = []
    with StopSignals() as stop, Progress(mine) as progress:
        for run in mine:
            if run.result() is not None:
                continue
            code = _train(run, script, stop, progress)
            if stop.received():
                progress.print(f"stopped by signal {stop.received()}: the same command goes on")
                return 128 + stop.received()
            if code == 2:
                sys.exit(f"{run.name}: {_last_line(run)}")
            if code or run.result() is None:
                failed.append(run)
                progress.print(f"{run.name} failed with exit code {code}: {_last_line(run)}")
    for run in failed:
        print(f"failed: {run.name}, see {run.workdir / 'log.txt'}")
    return 1 if failed else 0


def _check_same(run: Run):
    """Holds a run to the config that it was begun with: a result must not be another's."""
    path = run.workdir / "run.json"
    try:
        now = run.config
        # A run that has logged nothing yet has nothing to lose by another config.
        if not path.exists() or not (run.workdir / "metrics.jsonl").exists():
            return
        begun_with = config_lib.from_json(path).to_dict()
    except config_lib.ConfigError as error:
        sys.exit(f"{run.name}: error: {error}")
    if changed := config_lib.changes(begun_with, now):
        sys.exit(
            f"error: {run.workdir} holds a run of another config ({'; '.join(changed)}): give "
            "another --workdir, or remove that folder"
        )


def _link(run: Run):
    """Takes over a finished run of the same config, if there is one in the workdir."""
    if run.workdir.exists():
        return
    run.workdir.unlink(missing_ok=True)  # a link to a run that is gone
    for path in sorted(run.workdir.parent.parent.glob(f"*/{run.workdir.name}/run.json")):
        if not (path.parent / "result.json").exists():
            continue
        try:
            config = config_lib.from_json(path).to_dict()
        except config_lib.ConfigError:
            continue  # it is damaged, so nothing says of what config that run is
        if not config_lib.changes(config, run.config):
            run.workdir.parent.mkdir(exist_ok=True)
            with contextlib.suppress(FileExistsError):  # another shard's
                run.workdir.symlink_to(os.path.relpath(path.parent, run.workdir.parent))
            return


def _train(run: Run, script: pathlib.Path, stop: StopSignals, progress: Progress) -> int:
    """One run in a process of its own; returns its exit code."""
    run.workdir.mkdir(parents=True, exist_ok=True)
    # Opened to append: it may be another's, and holds its process's number.
    with (run.workdir / "lock").open("a") as lock, (run.workdir / "log.txt").open("a") as log:
        # The process inherits the lock, so it is held also by one whose runner has been killed.
        if not _locked(lock):
            progress.print(f"{run.name} is being trained by another process: waiting for it")
            while not _locked(lock) and not stop.received():
                progress.update(run)
                time.sleep(0.5)
        _check_same(run)  # what has been waited for may be of another config
        if stop.received() or run.result() is not None:
            progress.finished(run)
            return 0
        write(run.workdir / "run.json", json.dumps(run.config, indent=1) + "\n")
        process = subprocess.Popen(
            [sys.executable, str(script), "--workdir", str(run.workdir), *run.arguments],
            # Runs of one row are the same program: it is compiled once on each host.
            env={"JAX_COMPILATION_CACHE_DIR": cache_under(run.workdir.parent.parent)} | os.environ,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[lock.fileno()],
            process_group=0,  # of its own, so that Ctrl-C reaches it once, from here
        )
        lock.truncate(0)
        print(process.pid, file=lock, flush=True)
        progress.begun(run)
        told = False
        while process.poll() is None:
            if stop.received() and not told:
                told = True
                process.terminate()  # it saves first
            progress.update(run)
            time.sleep(0.2)
    progress.finished(run)
    return process.returncode


def _locked(file) -> bool:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _last_line(run: Run) -> str:
    lines = (run.workdir / "log.txt").read_text().strip().splitlines()
    return lines[-1] if lines else "it has printed nothing"
