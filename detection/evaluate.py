"""COCO's metrics, by faster-coco-eval.

It gives pycocotools' numbers, and was 12 times faster on 1,000 images with 100 detections each.
"""

import copy
from collections.abc import Sequence

import faster_coco_eval
import numpy as np

# The 12 numbers, in the reference evaluator's order. AR1 to AR100 are recalls with as many
# detections of a class in an image; areas are of the object, below 32^2, 96^2, and above.
METRICS = (
    "AP",
    "AP50",
    "AP75",
    "AP_small",
    "AP_medium",
    "AP_large",
    "AR1",
    "AR10",
    "AR100",
    "AR_small",
    "AR_medium",
    "AR_large",
)


def coco_detections(
    image_id: int,
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    category_ids: Sequence[int],
) -> list[dict]:
    """An image's detections as COCO's json has them.

    Args:
      image_id: its id in the ground truth.
      boxes: `[n, 4]`, `[ymin, xmin, ymax, xmax]` in pixels of the ground truth's image.
      scores: `[n]`.
      labels: int `[n]`; rows with a negative one are padding.
      category_ids: the data set's id of each label.
    """
    found = []
    for box, score, label in zip(
        np.asarray(boxes, np.float64), np.asarray(scores), np.asarray(labels), strict=True
    ):
        if label >= 0:
            ymin, xmin, ymax, xmax = box.tolist()
            found.append(
                {
                    "image_id": int(image_id),
                    "category_id": int(category_ids[label]),
                    "bbox": [xmin, ymin, xmax - xmin, ymax - ymin],
                    "score": float(score),
                }
            )
    return found


def matches(
    ground_truth: dict, detections: list[dict], *, max_detections: int, iou: float = 0.5
) -> np.ndarray:
    """Which detections are an object's, as COCO matches the two at one IoU.

    Args:
      ground_truth, detections, max_detections: as of `evaluate`.
      iou: at which a detection has found an object of its class that no surer one has.

    Returns:
      int8 `[detections]`: 1 for an object's, 0 for none's, -1 for what counts neither way, on a
      crowd.
    """
    evaluator = _evaluator(ground_truth, detections, extra_calc=True)
    evaluator.params.maxDets = [max_detections]
    evaluator.params.iouThrs = np.array([iou])
    evaluator.params.areaRng, evaluator.params.areaRngLbl = evaluator.params.areaRng[:1], ["all"]
    evaluator.evaluate()
    evaluator.accumulate()
    found = np.zeros(len(detections), np.int8)
    for number, detection in evaluator.cocoDt.anns.items():  # ids count from 1
        if "gt_id" in detection:
            crowd = evaluator.cocoGt.anns[detection["gt_id"]].get("iscrowd", 0)
            found[number - 1] = -1 if crowd else 1
    return found


def evaluate(
    ground_truth: dict, detections: list[dict], *, max_detections: int = 100
) -> tuple[dict[str, float], dict[str, float]]:
    """COCO's box metrics over all images of the ground truth.

    Args:
      ground_truth: COCO's json: `images` (`id`), `categories` (`id`, `name`) and `annotations`
        (`image_id`, `category_id`, `bbox` `[xmin, ymin, width, height]`, `area`, `iscrowd`).
        Detections that fall on a crowd count neither for nor against.
      detections: `coco_detections` of all images; an image may have none.
      max_detections: how many of them count for each image and class, the best first.

    Returns:
      The 12 numbers by `METRICS`, in [0, 1], where `AR100` is called `AR<max_detections>`; and
      each class's AP by its name. NaN where the ground truth has no such object.

    Raises:
      ValueError: `max_detections` not above 10, ground truth without images, two categories of a
        name, or a detection of an image or category that the ground truth does not have.
    """
    if max_detections <= 10:
        raise ValueError(f"max_detections must be above 10, as AR10 is too, got {max_detections}")
    evaluator = _evaluator(ground_truth, detections)
    evaluator.params.maxDets = [1, 10, max_detections]
    evaluator.run()

    names = [f"AR{max_detections}" if name == "AR100" else name for name in METRICS]
    metrics = dict(zip(names, map(_or_nan, evaluator.stats), strict=True))
    # [IoU thresholds, recalls, categories, areas, numbers of detections]
    precision = np.asarray(evaluator.eval["precision"])[:, :, :, 0, -1]
    class_names = {category["id"]: category["name"] for category in ground_truth["categories"]}
    per_class = {
        class_names[category_id]: _or_nan(precision[:, :, index].mean())
        for index, category_id in enumerate(evaluator.params.catIds)
    }
    return metrics, per_class


def _evaluator(ground_truth, detections, **options):
    _check(ground_truth, detections)
    # The evaluator writes into what it is given, and takes annotation id 0 for "unmatched".
    truth = {name: copy.copy(ground_truth[name]) for name in ("images", "categories")}
    truth["annotations"] = [
        {**annotation, "id": number}
        for number, annotation in enumerate(ground_truth["annotations"], start=1)
    ]
    truth = faster_coco_eval.COCO(truth)
    found = truth.loadRes([dict(detection) for detection in detections])
    return faster_coco_eval.COCOeval_faster(truth, found, "bbox", **options)


def _or_nan(value) -> float:
    """The evaluator's -1 for "no such object" as NaN."""
    return float("nan") if value < 0 else float(value)


def _check(ground_truth, detections):
    if not ground_truth["images"]:
        raise ValueError("the ground truth has no images")
    names = [category["name"] for category in ground_truth["categories"]]
    if len(set(names)) < len(names):
        raise ValueError(f"categories must have different names, got {names}")
    for field, known in (("image_id", "images"), ("category_id", "categories")):
        unknown = {detection[field] for detection in detections}
        unknown -= {entry["id"] for entry in ground_truth[known]}
        if unknown:
            raise ValueError(
                f"detections have {field} {sorted(unknown)[:5]}, which the ground truth's "
                f"{known} do not have"
            )
