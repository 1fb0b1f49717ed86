"""Boxes of a set of images: checked once, held in arrays, given back in COCO's form.

COCO's is the one form that all readers bring their boxes into: a dict of `images` (`id`,
`file_name`, `height`, `width`), `annotations` (`image_id`, `category_id`, `bbox` as x, y, width,
height in pixels, perhaps `area` and `iscrowd`) and `categories` (`id`, `name`).
"""

import collections
import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, TypedDict

import numpy as np
from absl import logging

from inputs.bad import NAMED, BadList
from inputs.reading import DataError, is_int64, is_integer, is_name, shown
from inputs.splits import check_classes, listed


class DetectionExample(TypedDict):
    """One image and its boxes.

    `image` uint8 `[height, width, channels]`; `boxes` float32 `[n, 4]`, `[ymin, xmin, ymax, xmax]`
    in pixels, inside the image; `labels` int32 `[n]`, contiguous from 0; `crowd` bool `[n]`, True
    where training should look away and evaluation should punish nothing; `area` float32 `[n]`;
    `image_id`, as found; `index` int32, the position in the source.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    area: np.ndarray
    image_id: int
    index: np.int32


@dataclasses.dataclass(frozen=True, eq=False)
class Annotations:
    """The usable boxes of a set of images, those of one image beside each other.

    Attributes:
      image_ids: int64 `[images]`, as found.
      file_names: of each image.
      sizes: int32 `[images, 2]`, height and width.
      starts: int64 `[images + 1]`: image i has boxes `starts[i]` to `starts[i + 1]`.
      boxes: float64 `[boxes, 4]`: x, y, width, height in pixels, as found.
      labels: int32 `[boxes]`, contiguous from 0.
      crowd: bool `[boxes]`.
      areas: float64 `[boxes]`, square pixels of the object (not of its box, where both are known).
      class_names: what labels index.
      category_ids: the original id of each label.
      left_out: what was left out, a line for each box (or entry).
    """

    image_ids: np.ndarray
    file_names: list[str]
    sizes: np.ndarray
    starts: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.image_ids)

    def example(self, index: int, image: np.ndarray) -> DetectionExample:
        """Image `index`, whose pixels are `image`, with its boxes."""
        span = slice(self.starts[index], self.starts[index + 1])
        return {
            "image": image,
            "boxes": _corners(self.boxes[span], self.sizes[index]).astype(np.float32),
            "labels": self.labels[span],
            "crowd": self.crowd[span],
            "area": self.areas[span].astype(np.float32),
            "image_id": int(self.image_ids[index]),
            "index": np.int32(index),
        }

    def ground_truth(self) -> dict[str, list[dict]]:
        """Images, annotations and categories in COCO's form, with the original ids.

        Boxes are as they were found, not cut at the border, so that COCO's numbers are COCO's.
        Annotations are numbered from 1: the evaluator takes the id 0 for "no match".
        """
        images = [
            {"id": int(id), "file_name": name, "height": int(height), "width": int(width)}
            for id, name, (height, width) in zip(
                self.image_ids, self.file_names, self.sizes, strict=True
            )
        ]
        of_image = np.repeat(self.image_ids, np.diff(self.starts))
        annotations = [
            {
                "id": number,
                "image_id": int(of_image[i]),
                "category_id": self.category_ids[self.labels[i]],
                "bbox": self.boxes[i].tolist(),
                "area": float(self.areas[i]),
                "iscrowd": int(self.crowd[i]),
            }
            for number, i in enumerate(range(len(self.boxes)), 1)
        ]
        categories = [
            {"id": id, "name": name}
            for id, name in zip(self.category_ids, self.class_names, strict=True)
        ]
        return {"images": images, "annotations": annotations, "categories": categories}

    def warn_of_more_than(self, max_boxes: int, name: str) -> None:
        """Names and counts the images with more boxes, crowds aside, than training will see."""
        of_image = np.repeat(np.arange(len(self)), np.diff(self.starts))
        counts = np.bincount(of_image[~self.crowd], minlength=len(self))
        over = np.flatnonzero(counts > max_boxes)
        if len(over):
            named = listed((f"{self.file_names[i]}: {counts[i]}" for i in over), NAMED)
            logging.warning(
                "%s: %d of %d images have more than %d boxes (%s). Training sees the %d largest of"
                " an image; config.data.max_boxes=%d would hold all.",
                *(name, len(over), len(self), max_boxes, named, max_boxes, counts.max()),
            )


def from_coco(
    coco: Any,
    name: str,
    *,
    class_names: Sequence[str] | None = None,
    span: slice = slice(None),
    warn: bool = True,
) -> Annotations:
    """Checks boxes in COCO's form; unusable ones are left out, named and counted in a warning.

    Unusable are boxes that have no area, lie outside their image, or are of no category of the
    list.

    Args:
      coco: `images`, `annotations` and `categories`. Of a file, only the images' sizes have to be
        filled in, if it lacks them.
      name: Names the whole in messages.
      class_names: What the names of the categories, sorted by id, have to be.
      span: The images to take.
      warn: Whether to name and count.

    Raises:
      DataError: `coco` has another structure, ids that are not unique, other classes, or
        annotations of images that it does not have.
    """
    images, annotations, categories = (coco_entries(coco, key, name) for key in _FIELDS)
    image_ids = _ids(images, f"images of {name}")
    position = {id: i for i, id in enumerate(image_ids)}
    homeless = [a["image_id"] for a in annotations if a["image_id"] not in position]
    if homeless:
        ids = [repr(id) for id in dict.fromkeys(homeless)]
        raise BadList(
            f"{name} has {len(homeless)} annotations of images that it does not list, those with"
            f" ids {listed(ids, NAMED)}: add the images or remove the annotations.",
            ids,
        )
    category_ids = sorted(_ids(categories, f"categories of {name}"))
    by_id = {category["id"]: str(category["name"]) for category in categories}
    names = tuple(by_id[id] for id in category_ids)
    if not names or len(set(names)) < len(names):
        raise DataError(f"{name} has the categories {listed(names)}: give each its own name.")
    check_classes(names, class_names, name, "use splits with the same categories")

    # Of the images of `span`, in their order, the boxes in theirs.
    of_image = np.array([position[a["image_id"]] for a in annotations], np.int64)
    order = np.argsort(of_image, kind="stable")
    order = order[np.isin(of_image[order], np.arange(len(images))[span])]
    annotations, of_image = [annotations[i] for i in order], of_image[order]
    label_of = {id: label for label, id in enumerate(category_ids)}
    labels = np.array([label_of.get(a["category_id"], -1) for a in annotations], np.int32)
    pixels = [[x if -_MAX <= x <= _MAX else math.nan for x in a["bbox"]] for a in annotations]
    boxes = np.array(pixels, np.float64).reshape(-1, 4)
    sizes = [(image.get("height") or 0, image.get("width") or 0) for image in images]
    sizes = np.array(sizes, np.int32).reshape(-1, 2)

    # As examples have them: a box may be too thin for float32.
    corners = _corners(boxes, sizes[of_image]).astype(np.float32)
    no_pixels = np.isnan(boxes).any(1)
    no_area = ~no_pixels & (boxes[:, 2:] <= 0).any(1)
    outside = ~no_pixels & ~no_area & (corners[:, 2:] <= corners[:, :2]).any(1)
    unknown = ~no_pixels & ~no_area & ~outside & (labels < 0)
    kept = ~(no_pixels | no_area | outside | unknown)
    lost: list[str] = []
    if warn:
        classes = dict.fromkeys(a["category_id"] for a in itertools.compress(annotations, unknown))
        left_out = {
            "of numbers that are no pixels": no_pixels,
            "of no area": no_area,
            "outside their image": outside,
            f"of unknown classes {listed(map(shown, classes))}": unknown,
        }
        # Coordinates rounded to pixels often end a little beyond the border.
        high = boxes[:, :2] + boxes[:, 2:] - sizes[of_image, ::-1]
        cut = kept & ((boxes[:, :2] < -1) | (high > 1)).any(1)
        files = [images[i]["file_name"] for i in of_image]
        _warn(name, files, left_out, cut)
        lost = [
            f"{name}: a box {reason} in {file}"
            for reason, mask in left_out.items()
            for file in itertools.compress(files, mask)
        ]

    annotations = list(itertools.compress(annotations, kept))
    boxes, of_image = boxes[kept], of_image[kept]
    areas = [a.get("area") for a in annotations]
    products = boxes[:, 2] * boxes[:, 3]
    counts = np.bincount(of_image, minlength=len(images))[span]
    return Annotations(
        image_ids=np.array(image_ids, np.int64)[span],
        file_names=[image["file_name"] for image in images[span]],
        sizes=sizes[span],
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes=boxes,
        labels=labels[kept],
        crowd=np.array([bool(a.get("iscrowd")) for a in annotations], bool),
        areas=np.array(
            [p if a is None else a for a, p in zip(areas, products, strict=True)], float
        ),
        class_names=names,
        category_ids=tuple(category_ids),
        left_out=tuple(lost),
    )


_MAX = 2**31 - 1  # of pixels: int32 holds them


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_box(value: Any) -> bool:
    return isinstance(value, Sequence) and len(value) == 4 and all(map(_is_number, value))


# What the fields have to be: a check, and the words for it.
_ID = (is_int64, "an integer of 64 bits")
_NAME = (is_name, "a name")
_CLASS = (lambda value: type(value) is int or is_name(value), _NAME[1])
_SIZE = (lambda value: value is None or is_integer(value, 0, _MAX), "a whole number of pixels")
_FIELDS = {
    "images": {"id": _ID, "file_name": _NAME, "height": _SIZE, "width": _SIZE},
    "annotations": {
        "image_id": _ID,
        # A class of VOC that is not in the list keeps its name.
        "category_id": (lambda value: is_int64(value) or isinstance(value, str), _ID[1]),
        "bbox": (_is_box, "four numbers: x, y, width, height"),
        "area": (
            lambda value: value is None or (_is_number(value) and 0 <= value <= 2.0**62),
            "a number of square pixels",
        ),
        "iscrowd": (lambda value: value is None or value in (0, 1), "0 or 1"),
    },
    "categories": {"id": _ID, "name": _CLASS},
}
_OPTIONAL = ("height", "width", "area", "iscrowd")


def coco_entries(coco: Any, key: str, name: str) -> list[dict]:
    """The list of `images`, `annotations` or `categories`, held to having what is needed.

    Raises:
      DataError: it has not.
    """
    entries = coco.get(key) if isinstance(coco, dict) else None
    if not isinstance(entries, list):
        raise DataError(f"{name} has no list {key!r}: it has to be a COCO instances file.")
    for i, entry in enumerate(entries):
        if wrong := _wrong_with(entry, key):
            raise DataError(f"{name}: {key}[{i}] {wrong}.")
    return entries


def _wrong_with(entry: Any, key: str) -> str | None:
    """What is wrong with an entry of the list `key`."""
    if not isinstance(entry, dict):
        return f"is {shown(entry)}, expected an object"
    for field, (is_right, words) in _FIELDS[key].items():
        if field not in entry:
            if field not in _OPTIONAL:
                return f"has no {field}: it holds {listed(map(str, entry))}"
        elif not is_right(entry[field]):
            return f"has the {field} {shown(entry[field])}, expected {words}"
    return None


def without_broken(coco: Any, name: str) -> tuple[Any, list[str]]:
    """A COCO json without the images and annotations that are none, and a sentence for each.

    Annotations of images that are not listed are left out, too; of those left out, without a word.
    """
    bad: list[str] = []
    if not isinstance(coco, dict):
        return coco, bad
    listed_ids, kept_ids = _image_ids(coco), None
    for key in ("images", "annotations"):
        if not isinstance(coco.get(key), list):
            continue
        good = []
        for i, entry in enumerate(coco[key]):
            wrong = _wrong_with(entry, key)
            if wrong is None and kept_ids is not None and entry["image_id"] not in kept_ids:
                if entry["image_id"] in listed_ids:
                    continue
                wrong = f"is of the image {entry['image_id']}, which is not listed"
            if wrong is None:
                good.append(entry)
            else:
                bad.append(f"{name}: {key}[{i}] {wrong}")
        coco = coco | {key: good}
        kept_ids = _image_ids(coco) if isinstance(coco.get("images"), list) else None
    return coco, bad


def _image_ids(coco: dict) -> set[int]:
    """The ids of the images listed that have one, whatever else is wrong with them."""
    images = coco.get("images")
    images = images if isinstance(images, list) else ()
    ids = (image.get("id") for image in images if isinstance(image, dict))
    return {id for id in ids if isinstance(id, int)}


def _warn(name: str, files: list[str], left_out: dict[str, np.ndarray], cut: np.ndarray) -> None:
    """Names and counts boxes by their masks bool `[boxes]`; `files` has the image of each box."""

    def where(mask: np.ndarray) -> str:
        return listed(dict.fromkeys(itertools.compress(files, mask)), NAMED)

    found = [f"{m.sum()} {reason} (in {where(m)})" for reason, m in left_out.items() if m.any()]
    if found:
        number = sum(mask.sum() for mask in left_out.values())
        logging.warning(
            "%s: %d of %d boxes are left out: %s", name, number, len(files), "; ".join(found)
        )
    if cut.any():
        logging.warning(
            "%s: boxes that reach beyond their image are cut at its border: %d (in %s)",
            *(name, cut.sum(), where(cut)),
        )


def _ids(entries: Iterable[dict], what: str) -> list[int]:
    ids = [entry["id"] for entry in entries]
    if len(set(ids)) < len(ids):
        repeated = (str(id) for id, count in collections.Counter(ids).items() if count > 1)
        raise DataError(f"several {what} have the same id ({listed(repeated)}).")
    return ids


def _corners(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """`[ymin, xmin, ymax, xmax]` of boxes of x, y, width, height, cut at the image's border."""
    low = boxes[:, 1::-1]
    return np.clip(np.concatenate([low, low + boxes[:, :1:-1]], 1), 0, np.tile(sizes, 2))
