"""What is told and drawn of a detector's detections."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks import detection_samples, pictures
from tasks.base import unpadded

if TYPE_CHECKING:  # else a start waits for it
    import matplotlib.figure

_FOUND = ("boxes", "scores", "labels")


@dataclasses.dataclass(frozen=True)
class Told:
    """How detections are told and drawn; a prediction is what `Detection.detect` gives of an image.

    Attributes:
      class_names: what labels index.
      min_score, picture_score: the least that is told, and the least that is drawn.
    """

    class_names: Sequence[str]
    min_score: float
    picture_score: float

    def annotations(self, prediction: dict, first_category: int) -> list[dict[str, Any]]:
        """By falling score, in COCO's form; `category_id` counts from `first_category`."""
        boxes, scores, labels = (np.asarray(prediction[name]) for name in _FOUND)
        sure = (labels >= 0) & (scores >= self.min_score)
        annotations, spread = [], detection_samples.described(prediction, sure)
        found = zip(boxes[sure], scores[sure], labels[sure], spread, strict=True)
        for box, score, label, uncertainty in found:
            ymin, xmin, ymax, xmax = box.astype(float).tolist()
            height, width = ymax - ymin, xmax - xmin
            annotations.append(
                {
                    "category_id": int(label) + first_category,
                    "category": self.class_names[label],
                    "bbox": [xmin, ymin, width, height],
                    "area": height * width,
                    "iscrowd": 0,
                    "score": float(score),
                    **uncertainty,
                }
            )
        return annotations

    def examples(self, predictions: dict, batch: dict) -> "matplotlib.figure.Figure":
        """A batch's images with the ground truth, and below each with the surer detections."""
        names = ("ground truth", self._title)
        figure, axes = pictures.columns(batch["original_size"], names, height=4.0)
        drawn = []
        for row, (truth_axis, axis) in enumerate(axes.T):
            image, labels = unpadded(batch, row), batch["labels"][row]
            known = labels >= 0
            texts = [self._named(label) for label in labels[known]]
            pictures.show(truth_axis, image)
            pictures.draw_boxes(
                truth_axis, batch["boxes"][row][known], labels[known], texts, self.class_names
            )
            pictures.show(axis, image)
            scale = np.tile(batch["scale"][row], 2)
            found = self._draw(axis, {name: predictions[name][row] for name in _FOUND}, scale)
            drawn += [labels[known], found]
        pictures.add_legend(figure, drawn, self.class_names)
        return figure

    def picture(self, image: np.ndarray, prediction: dict) -> "matplotlib.figure.Figure":
        """An image with its surer detections."""
        figure, axes = pictures.columns([image.shape[:2]], [self._title], height=6.0)
        pictures.show(axes[0, 0], image)
        found = self._draw(axes[0, 0], prediction, np.ones(4))
        pictures.add_legend(figure, [found], self.class_names)
        return figure

    @property
    def _title(self) -> str:
        return f"detections, score ≥ {self.picture_score:g}"

    def _draw(self, axis, found: dict, scale: np.ndarray) -> np.ndarray:
        """Draws the surer detections of an image that was scaled; returns their labels."""
        sure = (found["labels"] >= 0) & (found["scores"] >= self.picture_score)
        # The surest last, over the others.
        boxes, scores, labels = (found[name][sure][::-1] for name in _FOUND)
        texts = [
            f"{self._named(label)} {score:.2f}".strip()
            for label, score in zip(labels, scores, strict=True)
        ]
        pictures.draw_boxes(axis, boxes * scale, labels, texts, self.class_names)
        return labels

    def _named(self, label: int) -> str:
        """What is written at a box; where there is one class the legend says it."""
        return self.class_names[label] if len(self.class_names) > 1 else ""
