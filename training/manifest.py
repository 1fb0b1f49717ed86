"""What makes a saved folder a checkpoint: its `manifest.json`, of the sha256 sums of its files.

Orbax commits a step's folder atomically, but reads a flipped byte without a word. So each folder
gets its manifest when its save has finished, and is believed only if the sums agree. The score of
its evaluation lies in the folder too, at `metrics/metrics`.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from etils import epath

from training.files import is_file, read_object, write

_NAME = "manifest.json"
_METRICS = "metrics/metrics"


class Damaged(Exception):
    """A file of a checkpoint is not what it was saved as; the message names it."""


def seal(folder: epath.Path, metrics: dict[str, float] | None):
    """Makes a checkpoint of a folder that is saved, with the metrics it was evaluated at."""
    if metrics is not None:
        write(folder / _METRICS, json.dumps(metrics))
    _write(folder, {name: _sum(folder / name) for name in _names(folder)})


def add_metrics(folder: epath.Path, metrics: dict[str, float]):
    """Adds the metrics to a checkpoint that has none, which stays whole at any moment."""
    # A file that is not in the manifest is not believed: it counts from then on.
    write(folder / _METRICS, json.dumps(metrics))
    _write(folder, _read(folder) | {_METRICS: _sum(folder / _METRICS)})


def unseal(folder: epath.Path):
    """Makes a folder count as no checkpoint, before it is deleted."""
    (folder / _NAME).unlink(missing_ok=True)


def sealed(folder: epath.Path) -> bool:
    """Whether there is a manifest, of whatever kind: without one a save was interrupted."""
    return any(path.name == _NAME for path in folder.iterdir())


def check(folder: epath.Path):
    """Holds a checkpoint to its manifest.

    Raises:
      Damaged: they do not agree.
    """
    expected = _read(folder)
    for name in _names(folder):
        # What an evaluation was about to add when it was killed is not believed, and does no harm.
        if name not in expected and not name.startswith("metrics/"):
            raise Damaged(f"{folder / name} is not in its {_NAME}")
    for name in sorted(expected):
        _hold(folder / name, expected[name])


def metrics(folder: epath.Path) -> dict[str, float]:
    """The metrics of a checkpoint, empty where it has none.

    Raises:
      Damaged: they, or the manifest, are.
    """
    expected = _read(folder)
    if _METRICS not in expected:
        return {}
    path = folder / _METRICS
    _hold(path, expected[_METRICS])
    values = _object(path)
    if not all(isinstance(value, (int, float)) for value in values.values()):
        raise Damaged(f"{path} does not hold numbers")
    return values


def _hold(path: epath.Path, expected: str):
    if not path.exists():
        raise Damaged(f"{path} is missing")
    if _sum(path) != expected:
        raise Damaged(f"{path} does not have the sha256 sum it was saved with")


def _write(folder: epath.Path, sums: dict[str, str]):
    write(folder / _NAME, json.dumps(sums, indent=1))


def _read(folder: epath.Path) -> dict[str, str]:
    sums = _object(folder / _NAME)
    if not all(isinstance(value, str) for value in sums.values()):
        raise Damaged(f"{folder / _NAME} does not hold sha256 sums")
    return sums


def _object(path: epath.Path) -> dict[str, Any]:
    try:
        return read_object(path)
    except (OSError, ValueError) as error:
        raise Damaged(f"{path} cannot be read ({error})") from error


def _sum(path: epath.Path) -> str:
    if not is_file(path):
        raise Damaged(f"{path} is not a file")
    file: Any
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise Damaged(f"{path} cannot be read ({error})") from error


def _names(folder: epath.Path) -> Iterator[str]:
    """Relative paths of all that lies below a folder, but for folders and the manifest."""
    folders = [folder]
    while folders:
        for path in folders.pop().iterdir():
            if path.is_dir():
                folders.append(path)
            elif not path.name.startswith(_NAME):
                yield path.relative_to(folder).as_posix()
