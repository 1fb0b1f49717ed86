"""TFDS detection sets, COCO above all, prepared as ArrayRecord and read without TensorFlow."""

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from inputs.annotations import Annotations, DetectionExample, from_coco
from inputs.images import image_size
from inputs.prepared import Records, check_image_feature, open_records
from inputs.prepared_info import Feature, read_class_names
from inputs.reading import DataError, shown
from inputs.splits import check_classes, listed

# COCO's ids run from 1 to 90 with holes; TFDS numbers the 80 classes from 0, in the same order.
_COCO_HOLES = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
_COCO_IDS = tuple(id for id in range(1, 91) if id not in _COCO_HOLES)
# What marks objects that are not trained on: COCO's crowds, VOC's difficult ones.
_CROWD = ("objects/is_crowd", "objects/is_difficult")
_BOX, _LABEL, _AREA = "objects/bbox", "objects/label", "objects/area"


class _PreparedDetection:
    """Images and boxes of one split.

    TFDS stores areas cut to whole pixels, and boxes as fractions of the image in float32. COCO's
    numbers differ by that little from those that its json gives.
    """

    def __init__(self, records: Records, max_boxes: int | None):
        self._records, self._max_boxes = records, max_boxes
        names = read_class_names(records.folder, _LABEL, records.features[_LABEL])
        coco = len(names) == 80 and (names[0], names[-1]) == ("person", "toothbrush")
        self.class_names = names
        self.category_ids = _COCO_IDS if coco else tuple(range(1, len(names) + 1))
        self._seen: set[int] = set()

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> DetectionExample:
        example = self._records[index]
        image = self._records.image(example["image"], index).decode()
        coco = self._coco([self._entries(index, example, image.shape[:2])])
        # Boxes are checked whenever they are read, but warned of the first time only.
        first = index not in self._seen
        self._seen.add(index)
        annotations = from_coco(coco, self._records.name, warn=first)
        if first and self._max_boxes is not None:
            annotations.warn_of_more_than(self._max_boxes, self._records.name)
        return {**annotations.example(0, image), "index": np.int32(index)}

    def ground_truth(self) -> dict[str, list[dict]]:
        """Images, annotations and categories in COCO's form; reads every record, decodes none."""
        return self._annotations.ground_truth()

    @functools.cached_property
    def _annotations(self) -> Annotations:
        def entries(index: int) -> tuple[dict, list[dict]]:
            example = self._records[index]
            size = image_size(example["image"], self._records.name_of(index))
            return self._entries(index, example, size)

        with ThreadPoolExecutor(8) as pool:
            coco = self._coco(pool.map(entries, range(len(self))))
        return from_coco(coco, self._records.name)

    def _entries(
        self, index: int, example: dict[str, Any], size: tuple[int, ...]
    ) -> tuple[dict, list[dict]]:
        """What COCO's json would have of one example."""
        height, width = size
        id = example.get("image/id", index + 1)
        image = {"id": id, "file_name": f"example {index}", "height": height, "width": width}
        labels, boxes = example[_LABEL], example[_BOX]
        crowd = next((example[key] for key in _CROWD if key in example), [0] * len(labels))
        areas = example.get(_AREA, [None] * len(labels))
        if len(boxes) != 4 * len(labels) or not len(labels) == len(crowd) == len(areas):
            raise self._broken(index, f"{len(labels)} labels for {len(boxes)} numbers of boxes")
        if wrong := [label for label in labels if not -1 <= label < len(self.class_names)]:
            raise self._broken(index, f"label {wrong[0]} of {len(self.class_names)} classes")
        if not {*crowd} <= {0, 1} or not all(area is None or 0 <= area < 2**62 for area in areas):
            raise self._broken(index, "areas or crowds that are none")
        annotations = []
        for i, (ymin, xmin, ymax, xmax) in enumerate(zip(*[iter(boxes)] * 4, strict=True)):
            annotations.append(
                {
                    "image_id": id,
                    "category_id": self.category_ids[labels[i]] if labels[i] >= 0 else -1,
                    "bbox": [
                        xmin * width,
                        ymin * height,
                        (xmax - xmin) * width,
                        (ymax - ymin) * height,
                    ],
                    "iscrowd": crowd[i],
                    "area": areas[i],
                }
            )
        return image, annotations

    def _broken(self, index: int, found: str) -> DataError:
        return DataError(f"{self._records.name_of(index)} has {found}: prepare the set again.")

    def _coco(self, entries: Any) -> dict[str, list[dict]]:
        images, annotations = [], []
        for image, objects in entries:
            images.append(image)
            annotations += objects
        named = zip(self.category_ids, self.class_names, strict=True)
        categories = [{"id": id, "name": name} for id, name in named]
        return {"images": images, "annotations": annotations, "categories": categories}


def prepared_detection(
    name: str,
    data_dir: str | None,
    split: str,
    class_names: Sequence[str] | None,
    max_boxes: int | None,
) -> _PreparedDetection:
    """Opens `split` of the detection set in `data_dir/name/[config/]version`.

    Raises:
      DataError: It is not there, not in ArrayRecord form, has no images with boxes, or has other
        classes.
    """
    source = _PreparedDetection(open_records(name, data_dir, split, _image_and_objects), max_boxes)
    what = f"{name} split {split!r}"
    check_classes(source.class_names, class_names, what, "use splits of one data set")
    return source


def _image_and_objects(folder: str, features: dict[str, Feature]) -> Sequence[str]:
    """What is read: the image, its id, and of each object a box, a label, and more."""
    wanted = {"image": "Image", _BOX: "BBoxFeature", _LABEL: "ClassLabel"}
    if any(key not in features or features[key].kind != kind for key, kind in wanted.items()):
        raise DataError(
            f"{folder} is no detection set (its features: {listed(sorted(features))}): use one"
            " with an image and objects of bbox and label, as coco/2017."
        )
    form = features[_BOX].bbox_format
    if form != "REL_YXYX":
        raise DataError(f"{folder} has boxes in the form {shown(form)}, expected REL_YXYX.")
    check_image_feature(folder, features["image"])
    return [*wanted, *(key for key in (*_CROWD, _AREA, "image/id") if key in features)]
