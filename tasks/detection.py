"""Object detection: data, RetinaNet, its loss, COCO's metrics, pictures.

Constants: docs/paper.md section 5.
"""

import functools
import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from detection import anchors as anchor_lib
from detection import evaluate as evaluate_lib
from detection.decode import Detections, decode
from detection.losses import detection_loss
from detection.matching import make_targets
from dropblock import checks
from inputs.detection_sources import DetectionSource, detection_source
from inputs.images import DataError
from inputs.joint_transforms import detection_transform
from inputs.transforms import ExampleTransform
from models.retinanet import RetinaNet
from tasks import detection_samples
from tasks.architectures import backbone_of, pyramid_options
from tasks.base import Task, mean_color
from tasks.detection_told import Told
from training import monte_carlo
from training.monte_carlo import Moments, Spread

if TYPE_CHECKING:  # else a start waits for it
    import matplotlib.figure


class Detection(Task):
    """What detection adds to the training loop.

    Attributes:
      anchors: float32 `[anchors, 4]`, of an image of the config's size.
      max_detections: how many detections of an image are scored, the first for COCO's 12 numbers.
    """

    best_metric = "AP"
    num_drawn = 4
    legend = (
        "annotations are detections in COCO's form: bbox is [x, y, width, height] in pixels of the "
        "image as it is seen upright, x and y of its upper left corner"
    )
    first_category = 1
    class_layers = ("class_head/output",)
    collects = True
    eval: DetectionSource

    def __init__(self, config, **options):
        """Opens the data and checks what can be checked before a model is built.

        Args:
          config, **options: as of `Task`.

        Raises:
          ValueError: a field out of range, or data that is not there (`DataError`).
        """
        _check(config)
        self.architecture = backbone_of(config)
        data, model = config.data, config.model
        self.anchors = anchor_lib.make_anchors(
            data.image_size,
            data.image_size,
            min_level=model.min_level,
            max_level=model.max_level,
            scales=model.anchors_per_octave,
            aspects=model.anchor_aspects,
            anchor_scale=model.anchor_scale,
        )
        self.max_detections = tuple(config.detection.max_detections)
        super().__init__(config, **options)

    # --- Data.

    def open_split(self, split: str) -> DetectionSource:
        data = self.config.data
        return detection_source(
            data.name,
            data.dir,
            split,
            class_names=self.class_names,
            channels=data.channels,
            max_boxes=data.max_boxes if split == data.train_split else None,
            on_error=data.on_error,
            annotations=data.annotations,
            images=data.images,
            scenes=data.scenes.to_dict(),
        )

    def transform(self, train: bool) -> ExampleTransform:
        data = self.config.data
        return detection_transform(
            image_size=data.image_size,
            max_boxes=data.max_boxes,
            train=train,
            scale=tuple(data.scale),
            flip=data.flip,
            fill=mean_color(data),
        )

    def check_example(self, source: DetectionSource, *, train: bool):
        """Holds the first image that can be read to the config; evaluation needs an object."""
        for index in range(min(len(source), 10)):
            try:
                found = source[index]["image"].shape[-1]
            except DataError:
                continue  # found again, and treated as the config says, when it is read
            if found != self.config.data.channels:
                raise ValueError(
                    f"images of {self.config.data.name} have {found} channels, where "
                    f"data.channels is {self.config.data.channels}"
                )
            break
        if not train and all(box["iscrowd"] for box in self._ground_truth["annotations"]):
            raise DataError(
                f"split {self.config.data.eval_split!r} of {self.config.data.name} has no boxes, "
                "so nothing can be measured: choose another data.eval_split"
            )

    def batch_shapes(self, batch_size: int) -> dict:
        """Shapes of a training batch."""
        boxes = (batch_size, self.config.data.max_boxes)
        return {
            "image": self.image_shape(batch_size),
            "boxes": jax.ShapeDtypeStruct((*boxes, 4), jnp.float32),
            "labels": jax.ShapeDtypeStruct(boxes, jnp.int32),
            "scale": jax.ShapeDtypeStruct((batch_size, 2), jnp.float32),
            "original_size": jax.ShapeDtypeStruct((batch_size, 2), jnp.int32),
            "index": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
        }

    # --- Model and loss.

    def make_model(self, platform: str | None, rngs: nnx.Rngs) -> RetinaNet:
        """The detector that `config.model` describes."""
        model = self.config.model
        return RetinaNet(
            num_classes=len(self.class_names),
            anchors_per_cell=model.anchors_per_octave * len(model.anchor_aspects),
            rngs=rngs,
            **pyramid_options(self.config, self.drop, platform),
        )

    def loss(self, out: dict, batch: dict) -> tuple[jax.Array, dict]:
        """Focal and box loss of the batch, and the metrics' sums; anchors are matched here."""
        loss, parts = self._loss(out["class_logits"], out["box_codes"], self._targets(batch))
        count = jnp.float32(len(batch["labels"]))
        return loss, _sums(parts) | {"batches": jnp.float32(1), "count": count}

    def _targets(self, batch):
        iou = self.config.detection.match_iou
        return make_targets(batch["boxes"], batch["labels"], jnp.asarray(self.anchors), iou)

    def _loss(self, class_logits, box_codes, targets):
        fields = self.config.detection
        return detection_loss(
            class_logits,
            box_codes,
            targets,
            alpha=fields.focal_alpha,
            gamma=fields.focal_gamma,
            delta=fields.huber_delta,
            box_weight=fields.box_weight,
        )

    # --- Evaluation.

    def predict(self, out: dict, batch: dict, by_device: Callable) -> dict:
        """What is evaluated and drawn.

        Returns:
          What `detect` returns; `index`, of the example; and `class_loss`, `box_loss`, `positives`
          `[batch]`, each image's part of the loss.
        """

        def of_image(*image):
            return self._loss(*jax.tree.map(lambda x: x[None], image))[1]

        parts = jax.vmap(of_image)(out["class_logits"], out["box_codes"], self._targets(batch))
        found = self.detect(out, batch["original_size"], batch["scale"], by_device)
        return found | {"index": batch["index"]} | _sums(parts)

    def detect(self, out: dict, original_size, scale, by_device=lambda function: function) -> dict:
        """Decodes the network's outputs, with NMS.

        Args:
          out: of the network.
          original_size, scale: of a batch.
          by_device: see `Task.predict`.

        Returns:
          `boxes` float32 `[batch, detections, 4]` in pixels of the original image, `scores` and
          `labels` `[batch, detections]`, by falling score, -1 where there is none. Of samples
          besides, of each detection: `score_std`, `box_std` in pixels, `entropy`,
          `expected_entropy` and `mutual_information` of its class against all else.
        """
        fields = self.config.detection

        def of_batch(class_logits, box_codes, size, spread, box_std) -> tuple[Detections, dict]:
            found = decode(
                class_logits,
                box_codes,
                jnp.asarray(self.anchors),
                size,
                max_candidates=fields.max_candidates,
                max_detections=max(self.max_detections),
                iou_threshold=fields.nms_iou,
                min_score=fields.min_score,
            )
            at_detections = jax.vmap(detection_samples.at_detections)
            return found, at_detections(spread, box_std, found.anchors, found.labels)

        original = original_size.astype(jnp.float32)
        scale = jnp.where(scale > 0, scale, 1.0)  # 0 in rows of padding
        outputs = (out["class_logits"], out["box_codes"], original * scale)
        found, spread = by_device(of_batch)(*outputs, out.get("spread"), out.get("box_std"))
        if spread:
            spread["box_std"] /= jnp.tile(scale, 2)[:, None, :]
        # The detector saw the image scaled; boxes are brought back.
        boxes = found.boxes / jnp.tile(scale, 2)[:, None, :]
        boxes = jnp.minimum(boxes, jnp.tile(original, 2)[:, None, :])
        return {"boxes": boxes, "scores": found.scores, "labels": found.labels, **spread}

    def sampled(self, out: dict) -> tuple[jax.Array, dict]:
        return detection_samples.sampled(out, jnp.asarray(self.anchors))

    def averaged(self, spread: Spread, moments: dict[str, Moments]) -> dict:
        anchors = jnp.asarray(self.anchors)
        return detection_samples.averaged(spread, moments["boxes"], anchors)

    def eval_sums(self, predictions: dict, batch: dict) -> dict:
        """Sums of the loss's parts over the examples that `batch["mask"]` keeps."""
        mask = batch["mask"]
        sums = {
            name: jnp.sum(jnp.where(mask, predictions[name], 0.0))
            for name in (*_LOSSES, "positives")
        }
        return sums | {"batches": jnp.float32(1), "count": mask.sum(dtype=jnp.float32)}

    def summarize(self, sums: dict) -> dict:
        """Metrics from sums: `loss`, its parts, and `positives`, the anchors with an object.

        The loss is that of one batch; of several, its sums are divided by those of what each was
        divided by. `positives` is for each image.
        """
        normalizer = float(sums["positives"]) + float(sums["batches"])
        class_loss, box_loss = (float(sums[name]) / normalizer for name in _LOSSES)
        count = float(sums["count"])
        return {
            "loss": class_loss + self.config.detection.box_weight * box_loss,
            "class_loss": class_loss,
            "box_loss": box_loss,
            "positives": float(sums["positives"]) / count if count else math.nan,
        }

    def score(self, sums: dict, collected: dict) -> dict:
        """The metrics of an evaluation, AP and its kind in percent.

        COCO's 12 numbers count the best `max_detections[0]` detections of each image; `AP@<n>`,
        `AP50@<n>`, `AP75@<n>` and `AR<n>` the best n, for each other of them. `AP/<class>` is that
        of one class. What the ground truth has no object for is left out.
        """
        truth = self._ground_truth_of(collected["index"])
        metrics = self.summarize(sums)
        for limit in self.max_detections:
            found, per_class = evaluate_lib.evaluate(
                truth, self._coco_detections(collected, limit), max_detections=limit
            )
            if limit == self.max_detections[0]:
                found["AP"] = np.nan_to_num(found["AP"])  # no object was read: nothing is found
                found |= {f"AP/{name}": value for name, value in per_class.items()}
            else:
                found = {
                    f"{name}@{limit}" if name.startswith("AP") else name: found[name]
                    for name in ("AP", "AP50", "AP75", f"AR{limit}")
                }
            metrics |= {
                name: 100.0 * float(value) for name, value in found.items() if not np.isnan(value)
            }
        return metrics

    def judge(self, collected: dict) -> dict:
        """See `detection_samples.judge`, of detections of `detection.picture_score` or more.

        Right are those that COCO matches to an object at IoU 0.5; what falls on a crowd is none.
        """
        limit = max(self.max_detections)
        truth = self._ground_truth_of(collected["index"])
        detections = self._coco_detections(collected, limit)
        matched = evaluate_lib.matches(truth, detections, max_detections=limit)
        # In the order of the data, as these are.
        order = np.argsort(collected["index"])
        image, place = np.nonzero(collected["labels"][order] >= 0)
        names = {"scores", "score_std", *monte_carlo.SCORES} & collected.keys()
        found = {name: collected[name][order][image, place] for name in names}
        counts = (found["scores"] >= self.config.detection.picture_score) & (matched >= 0)
        found = {name: values[counts] for name, values in found.items()}
        return detection_samples.judge(found, matched[counts] == 1, image[counts])

    def files(self, collected: dict) -> dict[str, str]:
        """All detections in COCO's json, of original images and categories."""
        detections = self._coco_detections(collected, max(self.max_detections))
        return {"detections.json": json.dumps(detections)}

    @functools.cached_property
    def _ground_truth(self):
        return self.eval.ground_truth()

    def _ground_truth_of(self, indices: np.ndarray) -> dict[str, list[dict]]:
        """The ground truth of the examples that were read."""
        if len(np.unique(indices)) < len(indices):
            raise RuntimeError("an example was evaluated more than once")
        truth = self._ground_truth
        images = [truth["images"][index] for index in indices]
        ids = {image["id"] for image in images}
        annotations = [box for box in truth["annotations"] if box["image_id"] in ids]
        return truth | {"images": images, "annotations": annotations}

    def _coco_detections(self, collected: dict, limit: int) -> list[dict]:
        """The best `limit` detections of each image, images in the order of the data."""
        found = []
        for row in np.argsort(collected["index"]):
            found += evaluate_lib.coco_detections(
                self._ground_truth["images"][collected["index"][row]]["id"],
                collected["boxes"][row][:limit],
                collected["scores"][row][:limit],
                collected["labels"][row][:limit],
                self.eval.category_ids,
            )
        return found

    # --- Pictures, and predictions for images of one's own.

    def draw(self, predictions: dict, batch: dict) -> "matplotlib.figure.Figure":
        """Images with the ground truth, and below each with the surer detections."""
        return self._told.examples(predictions, batch)

    def unlabeled(self, image: np.ndarray, index: int) -> dict:
        return {
            "image": image,
            "boxes": np.zeros((0, 4), np.float32),
            "labels": np.zeros(0, np.int32),
            "crowd": np.zeros(0, bool),
            "index": np.int32(index),
        }

    def describe(self, prediction: dict) -> dict:
        """The detections by falling score; `bbox` is `[x, y, width, height]` in pixels.

        Of samples also `score_std`, `edges_std` in pixels, `[xmin, ymin, xmax, ymax]`, and
        entropies and mutual information of the class against all else: see `monte_carlo.Spread`.
        """
        return {"annotations": self._told.annotations(prediction, self.first_category)}

    def picture(self, image: np.ndarray, prediction: dict) -> "matplotlib.figure.Figure":
        """The image with its surer detections."""
        return self._told.picture(image, prediction)

    @property
    def _told(self) -> Told:
        fields = self.config.detection
        return Told(self.class_names, fields.min_score, fields.picture_score)


_LOSSES = ("class_loss", "box_loss")


def _sums(parts: dict) -> dict:
    """`detection_loss`'s parts, the losses before they were divided."""
    normalizer = parts["positives"] + 1.0
    return {name: parts[name] * normalizer for name in _LOSSES} | {"positives": parts["positives"]}


def _check(config):
    """Raises ValueError for a field out of range."""
    data, model, fields = config.data, config.model, config.detection
    checks.choice("model.name", model.name, ("retinanet",))
    if data.image_size < 1 or data.image_size % 2**model.max_level:
        raise ValueError(
            f"data.image_size must be a multiple of {2**model.max_level}, the stride of level "
            f"{model.max_level} (model.max_level), got {data.image_size}"
        )
    for name in ("match_iou", "nms_iou", "min_score", "picture_score", "focal_alpha"):
        checks.probability(f"detection.{name}", fields[name])
    for name, value in (
        ("detection.huber_delta", fields.huber_delta),
        ("detection.max_candidates", fields.max_candidates),
        ("data.max_boxes", data.max_boxes),
    ):
        if value <= 0:
            raise ValueError(f"{name} must be positive, got {value}")
    for name in ("focal_gamma", "box_weight"):
        if fields[name] < 0:
            raise ValueError(f"detection.{name} must not be negative, got {fields[name]}")
    counts = tuple(fields.max_detections)
    if not counts or min(counts) <= 10 or len(set(counts)) < len(counts):
        raise ValueError(
            "detection.max_detections must be different numbers above 10, as AR10 is among the "
            f"metrics, got {counts}"
        )
    least, greatest = data.scale
    if not 0 < least <= greatest:
        raise ValueError(f"data.scale must be two positive factors in order, got {data.scale}")
