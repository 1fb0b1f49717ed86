"""Splits and slices of them, as "train" or "train[80%:]"; their classes; names in messages."""

import re
from collections.abc import Iterable, Sequence

from inputs.reading import DataError, shortened, shown


def parse_split(split: str) -> tuple[str, tuple[str, str]]:
    """Splits "train[80%:]" into "train" and ("80%", "")."""
    # No set has examples of so many digits.
    match = re.fullmatch(r"([^\[\]\0]+)(?:\[(-?\d{1,15}%?)?:(-?\d{1,15}%?)?\])?", split, re.ASCII)
    if not match:
        raise DataError(
            f"split {shown(split)} is not understood: write train, train[:1000] or train[80%:]."
        )
    return match[1], (match[2] or "", match[3] or "")


def slice_bounds(split: str, selector: tuple[str, str], size: int) -> tuple[int, int]:
    """Start and stop of a slice of `size` examples, by the rules of TFDS."""

    def position(bound: str, default: int) -> int:
        if not bound:
            return default
        value = round(int(bound[:-1]) * size / 100) if bound[-1] == "%" else int(bound)
        return value + size if value < 0 else value

    start, stop = position(selector[0], 0), position(selector[1], size)
    if not 0 <= start < stop <= size:
        raise DataError(
            f"split {split!r} takes examples {start} to {stop} of {size}: choose a"
            " slice that lies within them and is not empty."
        )
    return start, stop


def check_classes(
    found: Sequence[str], wanted: Sequence[str] | None, name: str, advice: str
) -> None:
    """Holds the classes of the split or set `name` to those that are wanted, if any are.

    Raises:
      DataError: They are others; the message ends with `advice`.
    """
    if wanted is not None and tuple(wanted) != tuple(found):
        raise DataError(
            f"{name} has classes {listed(found)}, but {listed(wanted)} are wanted: {advice}."
        )


def counted(count: int, noun: str) -> str:
    """So many of something, in words."""
    return f"{count:,} {noun}" + "s" * (count != 1)


def listed(names: Iterable[str], limit: int = 12) -> str:
    """The first names, and how many there are when that is not all; none at full length."""
    names = [shortened(name) for name in names]
    more = f", ... ({len(names)} in all)" if len(names) > limit else ""
    return (", ".join(names[:limit]) + more) or "none"
