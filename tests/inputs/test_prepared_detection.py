import logging
import pickle

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from inputs.detection_sources import detection_source
from inputs.images import DataError
from inputs.joint_transforms import detection_transform
from inputs.pipeline import train_batches
from photos import encoded
from toy_tfds import record, write_tfds

LABELS = ("ant", "bee", "cat")
BOXES = [
    [(0.0, 0.0, 1.0, 1.0), (0.25, 0.5, 0.75, 1.0)],
    [],
    [(0.1, 0.2, 0.3, 0.4), (0.5, 0.5, 0.5, 0.9), (0.0, 0.5, 0.5, 0.75)],  # the second is a line
]


def jpeg(height, width):
    return encoded(Image.new("RGB", (width, height), (200, 100, 50)))


def coco_features(names=LABELS, crowd="is_crowd"):
    """As TFDS's coco/2017."""
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "image/filename": tfds.features.Text(),
            "image/id": np.int64,
            "objects": tfds.features.Sequence(
                {
                    "id": np.int64,
                    "area": np.int64,
                    "bbox": tfds.features.BBoxFeature(),
                    "label": tfds.features.ClassLabel(names=list(names)),
                    crowd: np.bool_,
                }
            ),
        }
    )


def coco_record(number, boxes, labels):
    return record(
        **{
            "image": jpeg(40 + number, 60),
            "image/filename": b"x.jpg",
            "image/id": 500 - number,
            "objects/id": [10 * number + i for i in range(len(boxes))],
            "objects/area": [100 + i for i in range(len(boxes))],
            "objects/bbox": [float(value) for box in boxes for value in box],
            "objects/label": labels,
            "objects/is_crowd": [i % 2 for i in range(len(boxes))],
        }
    )


def write_toy(root, names=LABELS, label=lambda i: i % 3):
    data = [
        coco_record(n, boxes, [label(i) for i in range(len(boxes))])
        for n, boxes in enumerate(BOXES)
    ]
    return write_tfds(root, {"train": [data[:2], data[2:]]}, features=coco_features(names))


def opened(root, split="train", **kwargs):
    return detection_source("toy", str(root), split, **kwargs)


def test_boxes_labels_crowds_and_areas(tmp_path):
    write_toy(tmp_path)
    source = opened(tmp_path)
    assert len(source) == 3 and source.class_names == LABELS
    example = source[0]
    assert example["image"].shape == (40, 60, 3) and example["image"].dtype == np.uint8
    np.testing.assert_allclose(example["boxes"], [(0, 0, 40, 60), (10, 30, 30, 60)])
    np.testing.assert_array_equal(example["labels"], [0, 1])
    np.testing.assert_array_equal(example["crowd"], [False, True])
    np.testing.assert_array_equal(example["area"], [100, 101])
    assert (example["image_id"], example["index"]) == (500, 0)
    dtypes = {key: str(np.asarray(example[key]).dtype) for key in ("boxes", "labels", "crowd")}
    assert dtypes == {"boxes": "float32", "labels": "int32", "crowd": "bool"}

    negative = source[1]
    assert negative["boxes"].shape == (0, 4) and negative["labels"].shape == (0,)
    part = opened(tmp_path, "train[2:]")
    assert part[0]["image_id"] == 498 and part[0]["index"] == 0
    again = pickle.loads(pickle.dumps(source))[0]
    np.testing.assert_array_equal(again["boxes"], example["boxes"])


def test_boxes_are_warned_of_the_first_time(tmp_path, caplog):
    write_toy(tmp_path)
    source = opened(tmp_path, max_boxes=1)
    with caplog.at_level(logging.WARNING, logger="absl"):
        for _ in range(3):
            np.testing.assert_array_equal(source[2]["labels"], [0, 2])
    useless, many = caplog.messages
    assert "1 of 3 boxes are left out: 1 of no area (in example 2)" in useless
    assert "more than 1 boxes (example 2: 2)" in many


def test_ground_truth_reads_every_record(tmp_path):
    write_toy(tmp_path)
    source = opened(tmp_path)
    truth = source.ground_truth()
    assert [(i["id"], i["height"], i["width"]) for i in truth["images"]] == [
        (500, 40, 60),
        (499, 41, 60),
        (498, 42, 60),
    ]
    assert [a["id"] for a in truth["annotations"]] == [1, 2, 3, 4]
    assert [a["image_id"] for a in truth["annotations"]] == [500, 500, 498, 498]
    assert [a["iscrowd"] for a in truth["annotations"]] == [0, 1, 0, 0]
    assert [a["area"] for a in truth["annotations"]] == [100, 101, 100, 102]
    np.testing.assert_allclose(truth["annotations"][1]["bbox"], (30, 10, 30, 20))
    assert truth["categories"] == [{"id": i + 1, "name": name} for i, name in enumerate(LABELS)]


def test_coco_gets_its_own_ids_back(tmp_path):
    """Spot checks from COCO's published list of categories."""
    names = ["person", *(f"class {i}" for i in range(1, 79)), "toothbrush"]
    chosen = [0, 11, 79]
    write_toy(tmp_path, names, label=lambda i: chosen[i])
    source = opened(tmp_path)
    ids = source.category_ids
    assert len(ids) == len(set(ids)) == 80 and list(ids) == sorted(ids)
    # person, fire hydrant, stop sign, bed, dining table, toilet, tv, toothbrush
    places = {0: 1, 10: 11, 11: 13, 59: 65, 60: 67, 61: 70, 62: 72, 79: 90}
    assert {label: ids[label] for label in places} == places
    found = {a["category_id"] for a in source.ground_truth()["annotations"]}
    assert found == {1, 13, 90}
    np.testing.assert_array_equal(source[0]["labels"], [0, 11])


def test_the_pipeline_reads_it(tmp_path):
    write_toy(tmp_path)
    transform = detection_transform(image_size=64, max_boxes=4, train=True, fill=(0, 0, 0))
    batches = train_batches(opened(tmp_path), transform, batch_size=6, seed=0, num_threads=2)
    batch = next(batches)
    assert batch["image"].shape == (6, 64, 64, 3) and batch["boxes"].shape == (6, 4, 4)
    counts = (batch["labels"] >= 0).sum(1)
    assert set(counts[batch["index"] == 1]) == {0} and counts.max() <= 2


def test_objects_that_do_not_fit_together_are_named_or_skipped(tmp_path):
    whole = [(0.0, 0.0, 1.0, 1.0), (0.1, 0.1, 0.5, 0.5)]
    bad = {
        "has label 7 of 3 classes": {"objects/label": [1, 7]},
        "has label 1099511627776 of 3": {"objects/label": [1, 2**40]},
        "has 1 labels for 8 numbers of boxes": {"objects/label": [1]},
        "has 3 labels for 8 numbers": {"objects/label": [1, 2, 0]},
        "has 2 labels for 7 numbers": {"objects/bbox": [0.5] * 7},
        "objects/label is a float_list": {"objects/label": [1.0, 2.0]},
        "has areas or crowds that are none": {"objects/area": [-1, 1]},
        "areas or crowds": {"objects/is_crowd": [2, 0]},
    }
    records = []
    for change in bad.values():
        values = {
            "image": jpeg(40, 60),
            "image/id": len(records),
            "objects/area": [100, 101],
            "objects/bbox": [value for box in whole for value in box],
            "objects/label": [1, 2],
            "objects/is_crowd": [0, 1],
        }
        records.append(record(**values | change))
    records.append(coco_record(0, whole, [-1, 2]))  # -1: TFDS's own "no label"
    write_tfds(tmp_path, {"train": [records]}, features=coco_features())
    source = opened(tmp_path)
    for index, reason in enumerate(bad):
        with pytest.raises(DataError, match=f"train example {index} .*{reason}"):
            source[index]
    assert source[len(bad)]["labels"].tolist() == [2]
    transform = detection_transform(image_size=64, max_boxes=4, train=True, fill=(0, 0, 0))
    batch = next(train_batches(source, transform, batch_size=2, seed=0, on_error="skip"))
    assert batch["index"].tolist() == [len(bad)] * 2


def test_what_does_not_fit_is_explained(tmp_path):
    write_toy(tmp_path)
    with pytest.raises(DataError, match="has classes ant, bee, cat, but ant, bee are wanted"):
        opened(tmp_path, class_names=("ant", "bee"))
    write_tfds(tmp_path / "plain", {"train": [[record(image=b"", label=0)]]})
    with pytest.raises(DataError, match=r"no detection set \(its features: image, label, note\)"):
        opened(tmp_path / "plain")
    with pytest.raises(DataError, match="no split 'test'"):
        opened(tmp_path, "test")
