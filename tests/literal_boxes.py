"""Boxes in NumPy, one at a time; and random ones."""

import numpy as np


def iou(box, other):
    """IoU of two boxes, in float32 as the device computes it."""
    ymin, xmin, ymax, xmax = np.float32(box)
    other_ymin, other_xmin, other_ymax, other_xmax = np.float32(other)
    height = max(min(ymax, other_ymax) - max(ymin, other_ymin), np.float32(0))
    width = max(min(xmax, other_xmax) - max(xmin, other_xmin), np.float32(0))
    both = height * width
    union = (ymax - ymin) * (xmax - xmin) + (other_ymax - other_ymin) * (other_xmax - other_xmin)
    return both / (union - both) if union > 0 else np.float32(0)


def nms(boxes, labels, limit, threshold):
    """Indices kept by greedy NMS of each class by itself, the best first, at most `limit`."""
    kept = []
    for label in set(labels[labels >= 0].tolist()):
        own = np.flatnonzero(labels == label).tolist()
        while own:
            best, *others = own
            kept.append(best)
            own = [i for i in others if iou(boxes[best], boxes[i]) <= np.float32(threshold)]
    return sorted(kept)[:limit]


def whole_boxes(random, count, side):
    """Boxes float32 `[count, 4]` with an area and whole coordinates, so that areas are exact."""
    corners = random.integers(0, side, (count, 2))
    sides = random.integers(1, side, (count, 2))
    return np.concatenate([corners, corners + sides], axis=-1).astype(np.float32)
