import copy
import logging
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inputs.annotations import from_coco
from inputs.images import DataError


def coco(boxes=((5, 6, 10, 20),), *, ids=(3, 7), **change):
    """Two images of 60 x 80 (height x width), the boxes on the first, all of category 90."""
    images = [{"id": id, "file_name": f"{id}.jpg", "height": 60, "width": 80} for id in ids]
    annotations = [{"image_id": ids[0], "category_id": 90, "bbox": list(box)} for box in boxes]
    categories = [{"id": 90, "name": "cup"}, {"id": 2, "name": "ant"}]
    return {"images": images, "annotations": annotations, "categories": categories} | change


def pixels():
    return np.zeros((60, 80, 3), np.uint8)


def warned(caplog, *args, **kwargs):
    with caplog.at_level(logging.WARNING, logger="absl"):
        got = from_coco(*args, **kwargs)
    messages = list(caplog.messages)
    caplog.clear()
    return got, messages


def test_boxes_become_corners_and_ids_become_contiguous():
    data = coco([(5, 6, 10, 20), (0, 0, 80, 60), (1.5, 2.25, 3, 4)])
    data["annotations"][1] |= {"category_id": 2, "iscrowd": 1, "area": 77.5}
    got = from_coco(data, "x")
    example = got.example(0, pixels())
    np.testing.assert_array_equal(
        example["boxes"], [(6, 5, 26, 15), (0, 0, 60, 80), (2.25, 1.5, 6.25, 4.5)]
    )
    assert got.class_names == ("ant", "cup") and got.category_ids == (2, 90)
    np.testing.assert_array_equal(example["labels"], [1, 0, 1])
    np.testing.assert_array_equal(example["crowd"], [False, True, False])
    np.testing.assert_array_equal(example["area"], [200, 77.5, 12])
    assert (example["image_id"], example["index"]) == (3, 0)
    dtypes = [str(np.asarray(v).dtype) for v in list(example.values())[1:]]
    assert dtypes == ["float32", "int32", "bool", "float32", "int64", "int32"]
    negative = got.example(1, pixels())
    assert negative["boxes"].shape == (0, 4) and negative["image_id"] == 7


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_examples_and_ground_truth_are_a_literal_walk(seed):
    """Annotations in any order, images without any, useless boxes among them."""
    rng = np.random.default_rng(seed)
    ids = [int(i) for i in rng.permutation(50)[: rng.integers(1, 8)]]
    data = coco([], ids=ids)
    for _ in range(rng.integers(0, 20)):
        x, y = rng.integers(-20, 90), rng.integers(-20, 70)
        w, h = rng.integers(0, 40, 2)
        box = [float(x), float(y), float(w), float(h)]
        category = int(rng.choice([2, 90, 5]))
        image = int(rng.choice(ids))
        data["annotations"].append(
            {
                "image_id": image,
                "category_id": category,
                "bbox": box,
                "iscrowd": int(rng.integers(2)),
            }
        )
    before = copy.deepcopy(data)
    got = from_coco(data, "x", warn=False)
    assert data == before
    truth = []
    for index, id in enumerate(ids):
        boxes, labels = [], []
        for a in data["annotations"]:
            x, y, w, h = a["bbox"]
            cut = (max(y, 0), max(x, 0), min(y + h, 60), min(x + w, 80))
            if a["image_id"] != id or a["category_id"] == 5 or cut[0] >= cut[2] or cut[1] >= cut[3]:
                continue
            boxes.append(cut)
            labels.append({2: 0, 90: 1}[a["category_id"]])
            truth.append(a | {"area": w * h, "id": len(truth) + 1})
        example = got.example(index, pixels())
        np.testing.assert_array_equal(example["boxes"], np.array(boxes).reshape(-1, 4))
        np.testing.assert_array_equal(example["labels"], labels)
    want = data | {
        "annotations": truth,
        "categories": sorted(data["categories"], key=lambda c: c["id"]),
    }
    assert got.ground_truth() == want


def test_a_span_takes_whole_images():
    data = coco(ids=(1, 2, 3))
    data["annotations"] = [
        {"image_id": i, "category_id": 2, "bbox": [i, 0, 1, 1]} for i in (3, 1, 2, 3)
    ]
    got = from_coco(data, "x", span=slice(1, 3))
    assert got.file_names == ["2.jpg", "3.jpg"] and len(got) == 2
    assert [len(got.example(i, pixels())["boxes"]) for i in range(2)] == [1, 2]
    assert [a["image_id"] for a in got.ground_truth()["annotations"]] == [2, 3, 3]


def test_useless_boxes_are_left_out_named_and_counted(caplog):
    boxes = [(5, 5, 9, 9), (5, 5, 0, 9), (5, 5, 9, -1), (90, 5, 9, 9), (-9, 5, 9, 9)]
    data = coco([*boxes, (float("nan"), 0, 1, 1), (5, 5, 9, 9)])
    data["annotations"][-1]["category_id"] = "dog"
    got, messages = warned(caplog, data, "set")
    assert len(got.boxes) == 1
    (message,) = messages
    assert message.startswith("set: 6 of 7 boxes are left out: 1 of numbers that are no")
    assert "pixels (in 3.jpg); 2 of no area (in 3.jpg); 2 outside their image (in 3.jpg)" in message
    assert "1 of unknown classes 'dog' (in 3.jpg)" in message
    assert warned(caplog, data, "set", warn=False)[1] == []
    assert warned(caplog, data, "set", span=slice(1, 2))[1] == []  # of other images


def test_boxes_across_the_border_are_cut_for_training_only(caplog):
    data = coco([(-5, 50, 20, 30), (70.4, 10, 10, 5)])
    got, messages = warned(caplog, data, "set")
    example = got.example(0, pixels())
    np.testing.assert_allclose(example["boxes"], [(50, 0, 60, 15), (10, 70.4, 15, 80)], rtol=1e-6)
    # Less than a pixel is rounding.
    assert messages == [
        "set: boxes that reach beyond their image are cut at its border: 1 (in 3.jpg)"
    ]
    assert [a["bbox"] for a in got.ground_truth()["annotations"]] == [
        a["bbox"] for a in data["annotations"]
    ]


def test_long_lists_are_shortened_but_counted(caplog):
    data = coco(ids=range(100))
    data["annotations"] = [
        {"image_id": i, "category_id": 2, "bbox": [0, 0, 0, 0]} for i in range(100)
    ]
    _, (message,) = warned(caplog, data, "set")
    assert "100 of 100 boxes" in message and "(100 in all)" in message and len(message) < 400


def test_images_with_too_many_boxes_are_named(caplog):
    data = coco([(i, 0, 5, 5) for i in range(6)])
    data["annotations"][0]["iscrowd"] = 1
    got = from_coco(data, "x")
    with caplog.at_level(logging.WARNING, logger="absl"):
        got.warn_of_more_than(5, "set train")
        assert not caplog.messages
        got.warn_of_more_than(4, "set train")
    (message,) = caplog.messages
    assert "set train: 1 of 2 images have more than 4 boxes (3.jpg: 5)" in message
    assert "config.data.max_boxes=5 would hold all" in message


WRONG = {
    "no dict": ([], "set has no list 'images'"),
    "no annotations": (coco(annotations=None), "set has no list 'annotations'"),
    "no bbox": (
        coco(annotations=[{"image_id": 3, "category_id": 2}]),
        r"annotations\[0\] has no bbox: it holds image_id, category_id",
    ),
    "short bbox": (coco([(1, 2, 3)]), r"annotations\[0\] has the bbox \[1, 2, 3\], expected four"),
    "text bbox": (coco([(1, 2, 3, "4")]), r"annotations\[0\] has the bbox \[1, 2, 3, '4'\]"),
    "no name": (coco(categories=[{"id": 1}]), r"categories\[0\] has no name"),
    "homeless": (
        coco(images=[{"id": 7, "file_name": "7.jpg", "height": 6, "width": 8}]),
        "1 annotations of images that it does not list, those with ids 3: add the images",
    ),
    "twice": (coco(ids=(3, 3)), r"several images of set have the same id \(3\)"),
    "text id": (
        coco(ids=("a", "b")),
        r"set: images\[0\] has the id 'a', expected an integer of 64",
    ),
    "same names": (
        coco(categories=[{"id": 90, "name": "a"}, {"id": 2, "name": "a"}]),
        "has the categories a, a: give each its own name",
    ),
    "no categories": (coco(categories=[]), "has the categories none"),
    "no object": (coco(annotations=[3]), r"annotations\[0\] is 3, expected an object"),
    "no class": (
        coco(categories=[{"id": 1, "name": "a\0"}]),
        r"categories\[0\] has the name 'a\\x00', expected a name",
    ),
}


WRONG_VALUES = {
    "images": [
        *(("id", 2**63), ("id", True), ("id", 3.0), ("file_name", None), ("file_name", "")),
        *(("height", 60.9), ("height", -1), ("width", 2**31), ("width", "80"), ("width", math.inf)),
    ],
    "annotations": [
        *(("image_id", [3]), ("image_id", True), ("category_id", {}), ("bbox", [1, 2, 3, True])),
        *(("area", math.nan), ("area", -1), ("area", math.inf), ("area", "7"), ("area", 10**400)),
        *(("iscrowd", "0"), ("iscrowd", 2), ("iscrowd", []), ("iscrowd", math.nan)),
    ],
    "categories": [("id", 2**63), ("id", None), ("name", None), ("name", ["a"])],
}


@pytest.mark.parametrize(
    "key, field, value", [(key, *pair) for key, pairs in WRONG_VALUES.items() for pair in pairs]
)
def test_values_that_would_have_to_be_guessed_are_refused(key, field, value):
    data = coco()
    data[key][0][field] = value
    with pytest.raises(DataError, match=rf"set: {key}\[0\] has the {field} .*, expected"):
        from_coco(data, "set")


def test_values_with_one_meaning_are_read():
    data = coco()
    data["images"][0] |= {"height": 60.0, "width": None}
    data["annotations"][0] |= {"iscrowd": True, "area": None}
    data["annotations"].append(data["annotations"][0] | {"iscrowd": 0.0, "area": 0})
    data["images"][0]["width"] = 80
    data["categories"][0]["name"] = 7
    got = from_coco(data, "set")
    assert got.crowd.tolist() == [True, False] and got.areas.tolist() == [200, 0]
    assert got.sizes[0].tolist() == [60, 80] and got.class_names == ("ant", "7")


def test_numbers_that_are_no_pixels_are_left_out(caplog):
    data = coco([(0, 0, 1e308, 5), (0, 10**400, 5, 5), (-math.inf, 0, 9, 9), (1, 1, 2**31, 2)])
    got, (message,) = warned(caplog, data, "set")
    assert len(got.boxes) == 0
    assert "4 of 4 boxes are left out: 4 of numbers that are no pixels (in 3.jpg)" in message
    # Too thin for float32, of which examples are: there was an area in float64.
    got, (message,) = warned(caplog, coco([(70, 1, 1e-7, 5)]), "set")
    assert len(got.boxes) == 0 and "1 of 1 boxes are left out" in message


def test_sizes_of_images_that_are_not_taken_may_be_missing():
    data = coco(ids=(1, 2))
    del data["images"][1]["height"]
    assert len(from_coco(data, "set", span=slice(0, 1))) == 1


@pytest.mark.parametrize("name", WRONG)
def test_other_structures_are_refused(name):
    data, match = WRONG[name]
    with pytest.raises(DataError, match=match):
        from_coco(data, "set")


def test_classes_are_held_to_those_of_training():
    from_coco(coco(), "set", class_names=("ant", "cup"))
    with pytest.raises(DataError, match="has classes ant, cup, but cup, ant are wanted"):
        from_coco(coco(), "set", class_names=("cup", "ant"))
