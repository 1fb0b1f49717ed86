"""What the splits of a data set hold, told at every start: a table, and what looks like a slip."""

import dataclasses
import difflib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from inputs.splits import listed

_ROWS = 20  # of classes in the table; of more, those with most and with fewest
_FEW = 10  # a class of fewer, where the typical one has so many times more, is warned of
_TIMES = 10
_NEAR = 0.75  # difflib's ratio of names of which one may be the other


@dataclasses.dataclass(frozen=True)
class Found:
    """What a split holds.

    Attributes:
      examples: how many there are.
      unit: what `counts` counts: "images", "boxes" or "pixels".
      counts: of each class; None where counting would mean to read the whole set.
      images: of pixels: the images that hold each class.
      bad: a sentence for each example that is known to be of no use.
      left_out: a line for each thing else that was left out, a box, say.
      notes: sentences about files that are not taken, or not as they are shown.
    """

    examples: int
    unit: str = "images"
    counts: tuple[int, ...] | None = None
    images: tuple[int, ...] | None = None
    bad: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def amounts(self) -> tuple[int, ...]:
        """What a class has few or many of: images of pixels, else what is counted."""
        return self.images or self.counts or ()


def found_in(source: Any) -> Found:
    """What a source says that it holds, or at least how many examples."""
    return getattr(source, "found", None) or Found(len(source))


def turned_note(turned: int, count: int, name: str, what: str) -> tuple[str, ...]:
    """About images of `name`, `turned` of `count`, that EXIF has shown otherwise than stored."""
    if not turned:
        return ()
    return (
        f"{name}: {turned} of {count} images have an EXIF rotation, which is not applied, as {what}"
        " are held to be of the stored pixels: where they are not, store these upright"
        " (mogrify -auto-orient)",
    )


def table(found: Mapping[str, Found], class_names: Sequence[str]) -> str:
    """A column for each split: its images, its boxes or pixels of each class, what is left out.

    Args:
      found: of each split, the training split first.
      class_names: of all.
    """
    splits = list(found.values())
    rows = [("", *found), ("images", *(f"{one.examples:,}" for one in splits))]
    counted = next((one for one in splits if one.counts is not None), None)
    if counted is None:
        rows.append((f"  {len(class_names):,} classes, not counted", *[""] * len(splits)))
    else:
        if counted.unit == "boxes":
            rows.append(("boxes", *(f"{sum(one.counts or ()):,}" for one in splits)))
        if counted.unit == "pixels":
            rows.append(("% of pixels (images)", *[""] * len(splits)))
        for i in _shown(counted.amounts, len(class_names)):
            name, cells = "...", [""] * len(splits)
            if i is not None:
                name, cells = class_names[i], [_cell(one, i) for one in splits]
            rows.append((f"  {name}", *cells))
        if len(class_names) > _ROWS:
            rows.append((f"  ({len(class_names):,} classes in all)", *[""] * len(splits)))
    for name in ("left_out", "bad"):
        numbers = [len(getattr(one, name)) for one in splits]
        if any(numbers):
            words = {"left_out": "boxes left out", "bad": "images of no use"}[name]
            rows.append((words, *(f"{number:,}" for number in numbers)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, *cells in rows:
        aligned = (f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True))
        lines.append("  ".join([f"  {name:<{widths[0]}}", *aligned]).rstrip())
    return "\n".join(lines)


def _cell(one: Found, index: int) -> str:
    if one.counts is None:
        return ""
    if not one.images:
        return f"{one.counts[index]:,}"
    return f"{100 * one.counts[index] / max(sum(one.counts), 1):.2f} ({one.images[index]:,})"


def _shown(amounts: Sequence[int], count: int) -> list[int | None]:
    """Which classes are shown: of many those with most and with fewest, None between them."""
    if count <= _ROWS:
        return list(range(count))
    order = sorted(range(count), key=lambda i: -amounts[i])
    return [*order[: _ROWS // 2], None, *order[-_ROWS // 2 :]]


def slips(found: Mapping[str, Found], class_names: Sequence[str]) -> list[str]:
    """Sentences about what is likely a mistake: files not taken, rare classes, absent ones.

    Args:
      found, class_names: as of `table`.
    """
    said = [note for one in found.values() for note in one.notes]
    counted = {split: one for split, one in found.items() if one.counts is not None}
    if not counted:
        return said
    train, one = next(iter(counted.items()))
    said += _rare(one, train, class_names)
    for split, other in counted.items():
        absent = [
            class_names[i]
            for i, amount in enumerate(other.amounts)
            if not amount and (split == train or one.amounts[i])
        ]
        if absent:
            said.append(f"{split} has no {_things(other)} of {listed(absent)}")
    return said


def _rare(one: Found, split: str, class_names: Sequence[str]) -> list[str]:
    """About classes of which there are very few, and those that may be another misspelt."""
    amounts = dict(zip(class_names, one.amounts, strict=True))
    present = {name: amount for name, amount in amounts.items() if amount}
    if len(present) < 2:
        return []
    typical = statistics.median_high(present.values())
    said, few = [], []
    for name, amount in present.items():
        near = [
            other
            for other, more in present.items()
            if more >= _TIMES * amount and _alike(name.casefold(), other.casefold())
        ]
        if near:
            meant = " or ".join(f"{other!r} ({present[other]:,})" for other in near)
            said.append(
                f"{split} has {_things(one)} of {name!r} ({amount:,}): is that {meant} misspelt?"
            )
        elif amount < _FEW and _TIMES * amount < typical:
            few.append(f"{name} ({amount})")
    if few:
        said.append(f"{split} has very few {_things(one)} of {listed(few)}")
    return said


def _alike(one: str, other: str) -> bool:
    if sorted(one) == sorted(other):  # of short names the ratio says little
        return True
    return difflib.SequenceMatcher(None, one, other).ratio() >= _NEAR


def _things(one: Found) -> str:
    return "images" if one.images else one.unit


def as_json(found: Mapping[str, Found], class_names: Sequence[str]) -> dict[str, Any]:
    """All of it, in JSON's types."""
    splits = {}
    for split, one in found.items():
        fields = {"examples": one.examples, "unit": one.unit}
        for name in ("counts", "images"):
            if (values := getattr(one, name)) is not None:
                fields[name] = dict(zip(class_names, values, strict=True))
        splits[split] = fields | {"bad": list(one.bad), "left_out": list(one.left_out)}
    return {"class_names": list(class_names), "splits": splits}
