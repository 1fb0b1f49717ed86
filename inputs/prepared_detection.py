"""TFDS detection sets, COCO above all, prepared as ArrayRecord and read without TensorFlow."""

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from inputs.annotations import Annotations, DetectionExample, from_coco
from inputs.images import DataError, image_size
from inputs.prepared import Records, check_image_feature, open_records
from inputs.splits import check_classes

# COCO's ids run from 1 to 90 with holes; TFDS numbers the 80 classes from 0, in the same order.
_COCO_HOLES = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
_COCO_IDS = tuple(id for id in range(1, 91) if id not in _COCO_HOLES)
# What marks objects that are not trained on: COCO's crowds, VOC's difficult ones.
_CROWD = ("is_crowd", "is_difficult")


class _PreparedDetection:
    """Images and boxes of one split.

    TFDS stores areas cut to whole pixels, and boxes as fractions of the image in float32. COCO's
    numbers differ by that little from those that its json gives.
    """

    def __init__(self, records: Records, max_boxes: int | None):
        self._records, self._max_boxes = records, max_boxes
        names = tuple(records.features["objects"].feature["label"].names)
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
        id = int(example.get("image/id", index + 1))
        image = {"id": id, "file_name": f"example {index}", "height": height, "width": width}
        objects = example["objects"]
        crowd = next((objects[key] for key in _CROWD if key in objects), None)
        annotations = []
        boxes = np.asarray(objects["bbox"], np.float64).reshape(-1, 4)  # TFDS: a list if empty
        for i, (ymin, xmin, ymax, xmax) in enumerate(boxes.tolist()):
            label = int(objects["label"][i])
            thing = {
                "image_id": id,
                "category_id": self.category_ids[label] if label >= 0 else label,
                "bbox": [
                    xmin * width,
                    ymin * height,
                    (xmax - xmin) * width,
                    (ymax - ymin) * height,
                ],
                "iscrowd": 0 if crowd is None else int(crowd[i]),
            }
            if "area" in objects:
                thing["area"] = float(objects["area"][i])
            annotations.append(thing)
        return image, annotations

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


def _image_and_objects(folder: epath.Path, features: dict[str, Any]) -> Any:
    """The features we read: the image, its id, and of each object a box, a label, and more."""
    objects: Any = getattr(features.get("objects"), "feature", None)
    kinds = {"bbox": tfds.features.BBoxFeature, "label": tfds.features.ClassLabel}
    if not (
        isinstance(features.get("image"), tfds.features.Image)
        and isinstance(objects, tfds.features.FeaturesDict)
        and all(key in objects and isinstance(objects[key], kinds[key]) for key in kinds)
    ):
        raise DataError(
            f"{folder} is no detection set (its features: {', '.join(sorted(features))}): use one"
            " with an image and objects of bbox and label, as coco/2017."
        )
    form = features["objects"].feature["bbox"].bbox_format.value
    if form != "REL_YXYX":
        raise DataError(f"{folder} has boxes in the form {form}, expected REL_YXYX.")
    check_image_feature(folder, features["image"])
    wanted = {key: objects[key] for key in (*kinds, *_CROWD, "area") if key in objects}
    chosen = {"image": features["image"], "objects": tfds.features.Sequence(wanted)}
    if "image/id" in features:
        chosen["image/id"] = features["image/id"]
    return tfds.features.FeaturesDict(chosen)
