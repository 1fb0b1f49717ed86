"""What a reader of boxes has to make of a file: a literal walk over it, one box at a time."""

import dataclasses
import math
from typing import Any

import numpy as np

from fuzz.cases import READ, SKIPPED, Wrong, counted, warnings_of
from inputs.detection_sources import DetectionSource
from inputs.images import DataError


class Refuse(Exception):
    """The file says something that has to be refused."""


@dataclasses.dataclass
class Truth:
    """What the images are, in order; the boxes of each as `(corners, class, crowd, area)`."""

    images: list[str]
    boxes: list[list[tuple]]
    left_out: int = 0
    of_another_size: tuple[int, ...] = ()


def box(x, y, width, height, size: tuple[int, int]):
    """Corners `(ymin, xmin, ymax, xmax)` within an image, None for a box that is of no use."""
    if not all(-(2**31) < number < 2**31 for number in (x, y, width, height)):  # NaN is none
        return None
    if width <= 0 or height <= 0:
        return None
    corners = (y, x, y + height, x + width)
    limits = (size[0], size[1]) * 2
    cut = [np.float32(min(max(c, 0), limit)) for c, limit in zip(corners, limits, strict=True)]
    return tuple(cut) if cut[0] < cut[2] and cut[1] < cut[3] else None


def number(value: Any) -> float:
    """A number of a JSON; an integer too large for a float is infinite."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Refuse
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def compare(open_source, truth: Truth | None) -> str:
    """Opens a source and holds all that it gives to the truth; None means it has to be refused."""
    with warnings_of() as messages:
        try:
            source: DetectionSource = open_source()
        except DataError as error:
            if truth is not None:
                raise Wrong(f"refused, though it is right: {error}") from error
            raise
    if truth is None:
        raise Wrong("it is read, where it has to be refused")
    if len(source) != len(truth.images):
        raise Wrong(f"{len(source)} images of {len(truth.images)}")
    counted(messages, truth.left_out, "boxes are left out")
    skipped = truth.left_out > 0
    for index, name in enumerate(truth.images):
        try:
            example = source[index]
        except DataError as error:
            if index not in truth.of_another_size or name not in str(error):
                raise Wrong(f"{name} is not read: {error}") from error
            skipped = True
            continue
        if index in truth.of_another_size:
            raise Wrong(f"{name} is read with boxes of another size")
        want = truth.boxes[index]
        found = list(
            zip(
                map(tuple, example["boxes"]),
                [source.class_names[label] for label in example["labels"]],
                example["crowd"].tolist(),
                example["area"].tolist(),
                strict=True,
            )
        )
        if len(found) != len(want) or not all(map(_close, found, want)):
            raise Wrong(f"{name} has {found}, not {want}")
    boxes = sum(map(len, truth.boxes))
    if len(source.ground_truth()["annotations"]) != boxes:
        raise Wrong(f"ground truth of {len(source.ground_truth()['annotations'])}, not {boxes}")
    return SKIPPED if skipped else READ


def _close(found: tuple, want: tuple) -> bool:
    return (
        np.allclose(found[0], want[0], rtol=1e-6)
        and found[1:3] == want[1:3]
        and np.allclose(found[3], want[3], rtol=1e-6)
    )
