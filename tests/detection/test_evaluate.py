"""COCO's metrics of a case that can be worked out by hand."""

import json
import math

import numpy as np
import pytest

from detection.evaluate import METRICS, coco_detections, evaluate, matches

SIDE = 40.0  # of all objects: an area of 1,600, "medium"


def annotation(image_id, category_id, xmin, *, iscrowd=0):
    box = [xmin, 0.0, SIDE, SIDE]
    return {
        "id": 0,  # which the evaluator would take for "unmatched"; ours numbers them anew
        "image_id": image_id,
        "category_id": category_id,
        "bbox": box,
        "area": SIDE * SIDE,
        "iscrowd": iscrowd,
    }


def detection(image_id, category_id, xmin, score, *, width=SIDE):
    box = [xmin, 0.0, width, SIDE]
    return {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score}


GROUND_TRUTH = {
    "images": [{"id": image_id, "height": 640, "width": 640} for image_id in (7, 8, 9)],
    "categories": [{"id": 3, "name": "cat"}, {"id": 17, "name": "dog"}, {"id": 90, "name": "cow"}],
    "annotations": [
        annotation(7, 3, 0.0),
        annotation(7, 3, 100.0),
        annotation(8, 3, 0.0),
        annotation(8, 3, 300.0, iscrowd=1),
        annotation(8, 17, 200.0),
    ],
}
# Cats: a hit, a false alarm, two that fall on a crowd and do not count, a hit; one cat is missed.
# So precision is 1 up to a recall of 1/3 and 2/3 up to 2/3, of 101 points of recall 34 and 33 (0 to
# .33, .34 to .66). The dog's box is half as wide again: IoU 2/3, a hit at .50, .55, .60 and .65.
DETECTIONS = [
    detection(7, 3, 0.0, 0.9),
    detection(9, 3, 0.0, 0.8),  # an image without objects
    detection(8, 3, 300.0, 0.7),
    detection(8, 3, 301.0, 0.65),
    detection(8, 3, 0.0, 0.6),
    detection(8, 17, 200.0, 0.1, width=1.5 * SIDE),
]
CAT = (34 * 1 + 33 * 2 / 3) / 101


def test_matches_by_hand():
    """The two on a crowd count neither way; the dog is one at IoU 0.5, not at 0.7."""
    options = {"max_detections": 100}
    assert matches(GROUND_TRUTH, DETECTIONS, **options).tolist() == [1, 0, -1, -1, 1, 1]
    assert matches(GROUND_TRUTH, DETECTIONS, **options, iou=0.7).tolist() == [1, 0, -1, -1, 1, 0]
    # An object is the surest one's alone.
    twice = [detection(7, 3, 1.0, 0.5), detection(7, 3, 0.0, 0.9)]
    assert matches(GROUND_TRUTH, twice, **options).tolist() == [0, 1]
    assert matches(GROUND_TRUTH, [], **options).tolist() == []


def test_by_hand():
    metrics, per_class = evaluate(GROUND_TRUTH, DETECTIONS)
    assert tuple(metrics) == METRICS
    expected = {
        "AP": (CAT + 0.4) / 2,
        "AP50": (CAT + 1) / 2,
        "AP75": (CAT + 0) / 2,
        "AP_medium": (CAT + 0.4) / 2,
        # Recall; with the best detection of an image and class only, image 8's cat is missed.
        "AR1": (1 / 3 + 0.4) / 2,
        "AR10": (2 / 3 + 0.4) / 2,
        "AR100": (2 / 3 + 0.4) / 2,
        "AR_medium": (2 / 3 + 0.4) / 2,
    }
    absent = {"AP_small", "AP_large", "AR_small", "AR_large"}
    assert {name for name, value in metrics.items() if math.isnan(value)} == absent
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert per_class == pytest.approx({"cat": CAT, "dog": 0.4, "cow": math.nan}, nan_ok=True)


def test_nothing_is_written_into_what_is_given():
    before = json.dumps([GROUND_TRUTH, DETECTIONS])
    evaluate(GROUND_TRUTH, DETECTIONS)
    assert json.dumps([GROUND_TRUTH, DETECTIONS]) == before


def test_more_objects_than_a_hundred():
    # 200 objects in a row, all found: at 100 detections only half of them can be.
    truth = GROUND_TRUTH | {"annotations": [annotation(7, 3, 50.0 * n) for n in range(200)]}
    found = [detection(7, 3, 50.0 * n, 0.5) for n in range(200)]
    at_11, cat_at_11 = evaluate(truth, found, max_detections=11)
    at_100, cat_at_100 = evaluate(truth, found)
    at_500, cat_at_500 = evaluate(truth, found, max_detections=500)
    # A recall of 11 / 200 is above the first 6 of 101 points, and one of a half above 51.
    assert (at_11["AP"], at_11["AR11"]) == pytest.approx((6 / 101, 11 / 200))
    assert (at_100["AP"], at_100["AR100"]) == pytest.approx((51 / 101, 0.5))
    assert (at_500["AP"], at_500["AR500"]) == pytest.approx((1.0, 1.0))
    for metrics, of_classes in ((at_11, cat_at_11), (at_100, cat_at_100), (at_500, cat_at_500)):
        assert (metrics["AR1"], metrics["AR10"]) == pytest.approx((1 / 200, 10 / 200))
        assert of_classes["cat"] == pytest.approx(metrics["AP"])


def test_no_detections():
    metrics, per_class = evaluate(GROUND_TRUTH, [])
    assert metrics["AP"] == metrics["AR100"] == per_class["cat"] == 0.0


def test_detections_as_coco_json():
    boxes = np.array([[1, 2, 4, 8], [0, 0, 0, 0], [0.5, 0, 2, 1]], np.float32)
    scores, labels = np.array([0.75, 0, 0.5], np.float32), np.array([1, -1, 0], np.int32)
    found = coco_detections(7, boxes, scores, labels, category_ids=(3, 90))
    assert json.loads(json.dumps(found)) == [
        {"image_id": 7, "category_id": 90, "bbox": [2.0, 1.0, 6.0, 3.0], "score": 0.75},
        {"image_id": 7, "category_id": 3, "bbox": [0.0, 0.5, 1.0, 1.5], "score": 0.5},
    ]


@pytest.mark.parametrize(
    ("truth", "found", "arguments", "message"),
    [
        ({}, [], {"max_detections": 10}, "max_detections.*10"),
        ({"images": []}, [], {}, "no images"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}, [], {}, "names.*'a'"),
        ({}, [detection(1, 3, 0.0, 0.5)], {}, r"image_id \[1\]"),
        ({}, [detection(7, 4, 0.0, 0.5)], {}, r"category_id \[4\]"),
    ],
)
def test_wrong_arguments_are_refused(truth, found, arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate(GROUND_TRUTH | truth, found, **arguments)
