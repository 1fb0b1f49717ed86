"""Reading `metrics.jsonl`: one record a line, of ascending steps."""

import bisect
import json
import pathlib
import shutil
import time

from absl import logging

from training.config import ConfigError
from training.files import writing

_NEEDED = ("epoch", "time/seconds")  # by what follows from records, besides an integral step


def read(path: pathlib.Path) -> tuple[list[dict], list[int]]:
    """Reads the records of a run.

    Returns:
      The records, by step, and the numbers, from 1, of damaged lines, which hold no record, or one
      out of order. A last line that a kill cut short is neither.

    Raises:
      ConfigError: it is not a file, or cannot be read.
    """
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path} is not a file: remove it, or give another --workdir")
    lines = path.read_bytes().split(b"\n")
    found = {number: record for number, line in enumerate(lines, 1) if (record := _record(line))}
    numbers = list(found)
    kept = [numbers[i] for i in _longest_ascent([record["step"] for record in found.values()])]
    filled = [number for number, line in enumerate(lines[:-1], 1) if line.strip()]
    damaged = sorted(set(filled).difference(kept))
    return [found[number] for number in kept], damaged


def keep_aside(path: pathlib.Path, damaged: list[int]):
    """Says which lines are damaged, and copies the file as it is to another name."""
    aside = path.with_name(f"{path.stem}.damaged-{time.time_ns()}{path.suffix}")
    with writing(aside):
        shutil.copyfile(path, aside)
    logging.warning(
        "%s: lines %s are damaged and left out; the file as it was is %s",
        path,
        ", ".join(map(str, damaged)),
        aside.name,
    )


def _record(line: bytes) -> dict | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = (
        isinstance(record, dict)
        and type(record.get("step")) is int
        and all(name in record for name in _NEEDED)
        and all(type(value) in (int, float) for value in record.values())
    )
    return record if whole else None


def _longest_ascent(steps: list[int]) -> list[int]:
    """Indices of a longest ascending subsequence: a damaged step alone stands out of it."""
    ends: list[int] = []  # of the best ascents of each length, the index of the last step
    before: list[int | None] = []
    for index, step in enumerate(steps):
        length = bisect.bisect_left(ends, step, key=steps.__getitem__)
        before.append(ends[length - 1] if length else None)
        ends[length : length + 1] = [index]
    ascent = []
    last = ends[-1] if ends else None
    while last is not None:
        ascent.append(last)
        last = before[last]
    return ascent[::-1]
