"""Transforms of an image together with its boxes or mask, from dicts to arrays of one shape.

Detection and segmentation scale alike (docs/paper.md sections 5 and 6): the longer side becomes
`factor * image_size`; an image that is then larger than the square is cropped at random, a smaller
one padded at the bottom and right. Evaluation has factor 1, so nothing is ever cropped.

Padding is the mean colour, which normalisation brings to 0; in masks it is the ignore label.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from inputs.transforms import ExampleTransform, mirror

IGNORE = 255  # the mask value of pixels that are neither trained on nor scored


def detection_transform(
    *,
    image_size: int,
    max_boxes: int,
    train: bool,
    scale: tuple[float, float] = (0.8, 1.2),
    flip: bool = True,
    fill: tuple[int, ...] = (0,),
) -> ExampleTransform:
    """Returns `transform(example, rng) -> arrays` for a `DetectionExample`.

    The arrays are `image` uint8 `[image_size, image_size, channels]`; `boxes` float32
    `[max_boxes, 4]`, `[ymin, xmin, ymax, xmax]` in pixels of that image, padded with zeros;
    `labels` int32 `[max_boxes]`, padded with -1; `scale` float32 `[2]`, what the original's rows
    and columns were multiplied with; `original_size` int32 `[2]`, its height and width; and
    `index` int32. In evaluation, `boxes / scale[[0, 1, 0, 1]]` are boxes of the original image.

    Crowds are left out, and so are boxes of which nothing is left after the crop. Of more than
    `max_boxes` those of the largest area are kept, in their order.

    Args:
      image_size: Height and width of the result.
      max_boxes: Boxes of the result.
      train: Whether to augment.
      scale: Least and greatest factor in training; the default is the paper's 512 to 768 of 640.
      flip: Whether training mirrors half of the images.
      fill: The mean colour, a value for each channel.
    """

    def transform(example: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        original_size = example["image"].shape[:2]
        view = _View(original_size, image_size, rng, scale if train else (1, 1), train and flip)
        chosen = ~example["crowd"]
        boxes, labels = view.of_boxes(example["boxes"][chosen]), example["labels"][chosen]
        sides = boxes[:, 2:] - boxes[:, :2]
        seen = np.flatnonzero((sides > 0).all(1))
        if len(seen) > max_boxes:
            by_area = np.argsort(-sides[seen].prod(1), kind="stable")
            seen = np.sort(seen[by_area[:max_boxes]])
        padded_boxes = np.zeros((max_boxes, 4), np.float32)
        padded_boxes[: len(seen)] = boxes[seen]
        padded_labels = np.full(max_boxes, -1, np.int32)
        padded_labels[: len(seen)] = labels[seen]
        return {
            "image": view.of_image(example["image"], fill),
            "boxes": padded_boxes,
            "labels": padded_labels,
            "scale": view.scale.astype(np.float32),
            "original_size": np.array(original_size, np.int32),
            "index": example["index"],
        }

    return transform


def segmentation_transform(
    *,
    image_size: int,
    train: bool,
    scale: tuple[float, float] = (0.75, 1.5),
    flip: bool = True,
    fill: tuple[int, ...] = (0,),
    max_size: tuple[int, int] | None = None,
) -> ExampleTransform:
    """Returns `transform(example, rng) -> arrays` for a `SegmentationExample`.

    The arrays are `image` uint8 `[image_size, image_size, channels]`; `label` uint8 (`mask` is the
    pipeline's own word), class indices and `IGNORE`; `scale` float32 `[2]`, `original_size` int32
    `[2]` and `index` as for detection.

    In training `label` is `[image_size, image_size]` and lies on the image. In evaluation it is
    `[*max_size]`: the mask as it is, at its original size, padded with `IGNORE` at the bottom and
    right. So a prediction can be resized to the original size on the device, and scored there,
    exactly, whatever the sizes: the centre of the original's pixel (y, x) lies at
    `((y + 0.5) * scale[0], (x + 0.5) * scale[1])` of the image.

    Args:
      image_size: Height and width of the image.
      train: Whether to augment.
      scale: Least and greatest factor in training; the default is that of docs/paper.md section 6.
      flip: Whether training mirrors half of the images.
      fill: The mean colour, a value for each channel.
      max_size: Evaluation: a height and width that no mask exceeds, as the source's `max_size`.
        None: of images of which no mask is known; the arrays have no `label` then.
    """

    def transform(example: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        size = example["image"].shape[:2]
        view = _View(size, image_size, rng, scale if train else (1, 1), train and flip)
        arrays = {
            "image": view.of_image(example["image"], fill),
            "scale": view.scale.astype(np.float32),
            "original_size": np.array(size, np.int32),
            "index": example["index"],
        }
        if train:
            arrays["label"] = view.of_mask(example["mask"])
        elif max_size is not None:
            arrays["label"] = np.full(max_size, IGNORE, np.uint8)
            arrays["label"][: size[0], : size[1]] = example["mask"]
        return arrays

    return transform


class _View:
    """A square window on a scaled image, at random: cropped, perhaps mirrored, and padded.

    Attributes:
      scale: float64 `[2]`, the exact factors of rows and columns after rounding to whole pixels.
    """

    def __init__(
        self,
        original: tuple[int, ...],
        side: int,
        rng: np.random.Generator,
        factors: tuple[float, float],
        flip: bool,
    ):
        self._original = np.array(original)
        factor = rng.uniform(*factors) * side / max(original)
        self._scaled = np.maximum(1, np.round(self._original * factor)).astype(int)
        self.scale = self._scaled / self._original
        self._side = side
        self._offset = rng.integers(0, np.maximum(0, self._scaled - side) + 1)
        self._shape = np.minimum(side, self._scaled)
        self._flipped = flip and rng.random() < 0.5

    def of_image(self, image: np.ndarray, fill: tuple[int, ...]) -> np.ndarray:
        """uint8 `[side, side, channels]`, bilinear, antialiased where it shrinks."""
        channels = image.shape[2]
        # Only the part that is seen is computed; its pixels are those of cropping afterwards.
        top, left = self._offset / self.scale
        bottom, right = np.minimum((self._offset + self._shape) / self.scale, self._original)
        height, width = self._shape.tolist()
        pixels = Image.fromarray(image[..., 0] if channels == 1 else image).resize(
            (width, height), Image.Resampling.BILINEAR, (left, top, right, bottom)
        )
        return self._finish(np.asarray(pixels).reshape(height, width, channels), fill)

    def of_mask(self, mask: np.ndarray) -> np.ndarray:
        """uint8 `[side, side]`, nearest neighbour: of the pixel that a pixel's centre falls on."""
        rows, columns = (
            (2 * (offset + np.arange(count)) + 1) * original // (2 * scaled)
            for offset, count, original, scaled in zip(
                self._offset, self._shape, self._original, self._scaled, strict=True
            )
        )
        return self._finish(mask[rows][:, columns], IGNORE)

    def of_boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes in the window, cut at its border; without area if they lie outside."""
        moved = boxes * np.tile(self.scale, 2) - np.tile(self._offset, 2)
        cut = np.clip(moved, 0, np.tile(self._shape, 2)).astype(np.float32)
        if self._flipped:
            cut[:, [1, 3]] = self._shape[1] - cut[:, [3, 1]]
        return cut

    def _finish(self, pixels: np.ndarray, fill: int | tuple[int, ...]) -> np.ndarray:
        """Mirrors, and pads at the bottom and right."""
        height, width = self._shape
        padded = np.empty((self._side, self._side, *pixels.shape[2:]), np.uint8)
        padded[:height, :width] = mirror(pixels) if self._flipped else pixels
        padded[height:] = fill
        padded[:height, width:] = fill
        return padded
