"""Semantic segmentation: data, model, loss, one exact confusion matrix, pictures."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from dropblock import checks
from inputs.joint_transforms import IGNORE, segmentation_transform
from inputs.segmentation_sources import SegmentationSource, segmentation_source
from inputs.transforms import ExampleTransform
from models.fcn import FCN
from tasks import pictures, segmentation_samples
from tasks.architectures import backbone_of, pyramid_options
from tasks.base import PixelMap, Task, mean_color, unpadded
from training import reliability
from training.monte_carlo import Moments, Spread

if TYPE_CHECKING:  # else a start waits for it
    import matplotlib.figure


class Segmentation(Task):
    """What segmentation adds to the training loop.

    Attributes:
      stride: of the logits; cell i lies on pixel `stride * i`.
    """

    best_metric = "mIoU"
    num_drawn = 4
    legend = (
        "mask is a PNG of the size of the image as it is seen upright, whose pixels are the ids of "
        "the categories; pixels counts them"
    )
    class_layers = ("output",)
    eval: SegmentationSource

    def __init__(self, config, **options):
        """Opens the data and checks what can be checked before a model is built.

        Args:
          config, **options: as of `Task`.

        Raises:
          ValueError: a field out of range, or data that is not there or does not fit (`DataError`).
        """
        data, model = config.data, config.model
        checks.choice("model.name", model.name, ("fcn",))
        low, high = data.scale
        if not 0 < low <= high:
            raise ValueError(f"data.scale must be positive and rising, got {tuple(data.scale)}")
        if data.name == "scenes" and data.channels != 1:
            raise ValueError(f"scenes are gray: data.channels must be 1, got {data.channels}")
        self.architecture = backbone_of(config)
        self.stride = 2**model.min_level
        super().__init__(config, **options)

    # --- Data.

    def open_split(self, split: str) -> SegmentationSource:
        data = self.config.data
        return segmentation_source(
            data.name,
            data.dir,
            split,
            class_names=self.class_names,
            channels=data.channels,
            on_error=data.on_error,
            names=data.names,
            images=data.images,
            masks=data.masks,
            # Runs of before have neither.
            listed_values=data.get("mask_values"),
            ignore_index=data.get("ignore_index"),
            scenes=data.scenes.to_dict(),
        )

    def transform(self, train: bool) -> ExampleTransform:
        data = self.config.data
        source = None if train else getattr(self, "eval", None)
        return segmentation_transform(
            image_size=data.image_size,
            train=train,
            scale=tuple(data.scale),
            flip=data.flip,
            fill=mean_color(data),
            max_size=source and source.max_size,
        )

    def batch_shapes(self, batch_size: int) -> dict:
        """Shapes of a training batch."""
        image = self.image_shape(batch_size)
        return {
            "image": image,
            "label": jax.ShapeDtypeStruct(image.shape[:3], jnp.uint8),
            "scale": jax.ShapeDtypeStruct((batch_size, 2), jnp.float32),
            "original_size": jax.ShapeDtypeStruct((batch_size, 2), jnp.int32),
            "index": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
        }

    # --- Model and loss.

    def make_model(self, platform: str | None, rngs: nnx.Rngs) -> FCN:
        """The network that `config.model` describes."""
        options = pyramid_options(self.config, self.drop, platform)
        return FCN(num_classes=len(self.class_names), rngs=rngs, **options)

    def loss(self, out: dict, batch: dict) -> tuple[jax.Array, dict]:
        """Mean softmax cross-entropy of the pixels that count, and the metrics' sums.

        Labels are taken where the logits' cells lie, on every `stride`-th pixel (docs/paper.md
        section 6). The mean is over the whole batch; of no pixels it is 0.
        """
        logits, labels = out["logits"], batch["label"][:, :: self.stride, :: self.stride]
        total = summed_loss(logits, labels)
        confusion = confusion_matrix(labels, logits.argmax(-1), logits.shape[-1])
        pixels = jnp.maximum((labels != IGNORE).sum(), 1)
        return total / pixels, {"loss": total, "confusion": confusion}

    def predict(self, out: dict, batch: dict, by_device: Callable) -> dict:
        """What is evaluated and drawn, at each image's own size.

        Returns:
          `classes`: uint8 `[batch, *max_size]`, of each pixel; `confusion`: int32 `[batch, classes,
          classes]`, see `confusion_matrix`; `loss`: `[batch]`, see `summed_loss`. Of images without
          labels, whose sizes nothing bounds, `logits`, `scale` and `original_size`; of samples also
          `spread`, float32 `[batch, height, width, 3]` where the logits are, of
          `segmentation_samples.SPREAD`.
        """
        if "label" not in batch:
            found = {"logits": out["logits"]} | {k: batch[k] for k in ("scale", "original_size")}
            if "spread" in out:
                found["spread"] = segmentation_samples.spread_of(out)
            return found

        def of_example(example):
            logits, label, scale = example
            logits = resize_to_original(logits, self.stride, scale, label.shape)
            classes = logits.argmax(-1).astype(jnp.uint8)
            return {
                "classes": classes,
                "confusion": confusion_matrix(label, classes, logits.shape[-1]),
                "loss": summed_loss(logits, label),
            }

        # One after another: the logits of all at their original size would fill the memory.
        return by_device(lambda *arrays: jax.lax.map(of_example, arrays))(
            out["logits"], batch["label"], batch["scale"]
        )

    def sampled(self, out: dict) -> tuple[jax.Array, dict]:
        return jax.nn.log_softmax(out["logits"]), {}

    def averaged(self, spread: Spread, moments: dict[str, Moments]) -> dict:
        # Where they are interpolated, the class of a pixel is that of logits: of these differ only
        # by what is the same for all classes of a cell.
        return {"logits": spread.log_mean, "spread": spread}

    def to_judge(self, out: dict, batch: dict, by_device: Callable) -> dict:
        """Sums over each image's pixels that count, at its own size.

        Returns:
          `nll` `[batch]`; `calibration`, `[batch, 3, bins]`, see `reliability.calibration`; and
          `histograms`, int32 `[batch, scores, bins, 2]`, of each score the right and wrong pixels.
        """
        classes = out["logits"].shape[-1]

        def of_example(example):
            values, label, scale = example
            values = resize_to_original(values, self.stride, scale, label.shape)
            log_p = jax.nn.log_softmax(values[..., :classes])
            scores = segmentation_samples.scores(log_p, values[..., classes:])
            return reliability.pixel_sums(log_p, scores, label, IGNORE)

        values = jnp.concatenate([out["logits"], segmentation_samples.spread_of(out)], axis=-1)
        return by_device(lambda *arrays: jax.lax.map(of_example, arrays))(
            values, batch["label"], batch["scale"]
        )

    def judge(self, collected: dict) -> dict:
        """See `segmentation_samples.judge`."""
        return segmentation_samples.judge(collected)

    def eval_sums(self, predictions: dict, batch: dict) -> dict:
        """The loss and the confusion matrix over the examples that `batch["mask"]` keeps."""
        mask = batch["mask"]
        if "confusion" not in predictions:
            return {"count": mask.sum()}
        return {
            "confusion": jnp.where(mask[:, None, None], predictions["confusion"], 0).sum(0),
            "loss": jnp.where(mask, predictions["loss"], 0.0).sum(),
            "count": mask.sum(),
        }

    def summarize(self, sums: dict) -> dict:
        """Metrics from sums: `loss`, the mean over the pixels that count, and in percent `mIoU`
        and `pixel_accuracy`."""
        pixels = max(float(np.sum(sums["confusion"])), 1.0)
        return {"loss": float(sums["loss"]) / pixels} | _means(np.asarray(sums["confusion"]))

    def score(self, sums: dict, collected: dict) -> dict:
        """`loss`, and in percent `mIoU`, `pixel_accuracy` and each class's `IoU/<class>`.

        All are of the pixels of the masks as they are, where training sees every `stride`-th one of
        the scaled image.
        A class that is neither in a mask nor predicted anywhere has no IoU and counts for nothing;
        one that is predicted though in no mask has 0 (docs/paper.md section 7).
        """
        ious = 100 * class_iou(sums["confusion"])
        return self.summarize(sums) | {
            f"IoU/{name}": float(iou)
            for name, iou in zip(self.class_names, ious, strict=True)
            if not np.isnan(iou)
        }

    # --- Pictures, and predictions for images of one's own.

    def draw(self, predictions: dict, batch: dict) -> "matplotlib.figure.Figure":
        """Images, below each its mask, and below that what is predicted."""
        sizes = batch["original_size"]
        figure, axes = pictures.columns(sizes, ("image", "truth", "prediction"), height=2.6)
        known, masks = (batch["label"], predictions["classes"]), []
        for row, ((height, width), column) in enumerate(zip(sizes, axes.T, strict=True)):
            pictures.show(column[0], unpadded(batch, row))
            for axis, values in zip(column[1:], known, strict=True):
                masks.append(np.asarray(values[row])[:height, :width])
                pictures.show_mask(axis, masks[-1], self.class_names)
        pictures.add_legend(figure, masks, self.class_names)
        return figure

    def unlabeled(self, image: np.ndarray, index: int) -> dict:
        return {"image": image, "index": np.int32(index)}

    def describe(self, prediction: dict) -> dict:
        """The pixels of each class that is found."""
        values, counts = np.unique(self.mask(prediction), return_counts=True)
        names = (self.class_names[value] for value in values)
        return {"pixels": dict(zip(names, counts.tolist(), strict=True))}

    def picture(self, image: np.ndarray, prediction: dict) -> "matplotlib.figure.Figure":
        """The image, and the class of each pixel over it."""
        classes = self.mask(prediction)
        figure, axes = pictures.columns([classes.shape] * 2, [""], height=4.0)
        pictures.show(axes[0, 0], image)
        pictures.show_overlay(axes[0, 1], image, classes, self.class_names)
        pictures.add_legend(figure, [classes], self.class_names)
        return figure

    def mask(self, prediction: dict) -> np.ndarray:
        """The class of each pixel, uint8, at the image's own size."""
        if "classes" in prediction:
            return prediction["classes"]
        return self._at_pixels(prediction, ("logits",), lambda x: x.argmax(-1).astype(np.uint8))

    def maps(self, prediction: dict) -> dict[str, PixelMap]:
        """See `segmentation_samples.maps`, at the image's own size."""
        if "spread" not in prediction:
            return {}
        classes = len(self.class_names)
        shares = functools.partial(segmentation_samples.shares, classes=classes)
        values = self._at_pixels(prediction, ("logits", "spread"), shares)
        return segmentation_samples.maps(values, classes)

    def _at_pixels(self, prediction, names, function):
        """A function of `[rows, width, channels]`, interpolated at the pixels of the original."""
        values = np.concatenate([np.asarray(prediction[n], np.float32) for n in names], axis=-1)
        height, width = prediction["original_size"].tolist()
        rows, columns = (
            _interpolation(np, *axis, self.stride)
            for axis in zip((height, width), values.shape, prediction["scale"], strict=False)
        )
        across = np.einsum("hwc,xw->hxc", values, columns, optimize=True)
        # A few rows at a time: the logits of a large photograph are gigabytes.
        bands = [
            function(np.tensordot(rows[first : first + 32], across, 1))
            for first in range(0, height, 32)
        ]
        return np.concatenate(bands)


def resize_to_original(
    logits: jax.Array, stride: int, scale: jax.Array, size: tuple[int, ...]
) -> jax.Array:
    """Interpolates logits at the pixels of the original image.

    Cell i lies on pixel `stride * i` of the image that the network saw, as training has it, so the
    original's pixel y, whose centre is at `(y + 0.5) * scale` there, lies at
    `((y + 0.5) * scale - 0.5) / stride` among the cells. For an image that was not scaled and has
    `stride * n + 1` pixels that is bilinear interpolation with aligned corners.

    Args:
      logits: `[height, width, classes]`.
      stride: pixels from cell to cell.
      scale: float32 `[2]`, the factors from the original's rows and columns to the image's.
      size: (height, width) of the result; those beyond the original are of no meaning.

    Returns:
      `[*size, classes]`, linear between the cells and constant beyond the last.
    """
    rows, columns = (
        _interpolation(jnp, *axis, stride) for axis in zip(size, logits.shape, scale, strict=False)
    )
    return jnp.einsum("hwc,yh,xw->yxc", logits, rows, columns, precision="highest")


def _interpolation(xp, count: int, cells: int, scale, stride: int):
    """Weights of cells in pixels of the original, `[count, cells]`, in numpy or jax.numpy."""
    positions = ((xp.arange(count, dtype=xp.float32) + 0.5) * scale - 0.5) / stride
    positions = xp.clip(positions, 0.0, cells - 1.0)
    distances = xp.abs(positions[:, None] - xp.arange(cells, dtype=xp.float32)[None, :])
    return xp.maximum(1.0 - distances, 0.0)


def summed_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The sum of the softmax cross-entropy of pixels; those to ignore add nothing.

    Args:
      logits: `[..., classes]`.
      labels: uint8 `[...]`, class indices and `IGNORE`.
    """
    counts = labels != IGNORE
    losses = optax.softmax_cross_entropy_with_integer_labels(
        logits, jnp.where(counts, labels, 0).astype(jnp.int32)
    )
    return jnp.sum(jnp.where(counts, losses, 0.0))


def confusion_matrix(labels: jax.Array, classes: jax.Array, num_classes: int) -> jax.Array:
    """Counts pixels by true (row) and predicted class, exactly; those to ignore do not count.

    Args:
      labels: uint8, class indices and `IGNORE`.
      classes: predicted class indices, of labels' shape.
      num_classes: at most 255.

    Returns:
      int32 `[num_classes, num_classes]`.
    """
    # A product of one-hot rows, which devices share without gathering; IGNORE's row is zeros.
    true, predicted = (jax.nn.one_hot(x, num_classes, dtype=jnp.int8) for x in (labels, classes))
    axes = tuple(range(labels.ndim))
    return jnp.tensordot(true, predicted, (axes, axes), preferred_element_type=jnp.int32)


def class_iou(confusion: np.ndarray) -> np.ndarray:
    """Intersection over union of each class, float64 `[classes]`; NaN where the union is empty."""
    confusion = np.asarray(confusion, np.float64)
    hits = np.diagonal(confusion)
    union = confusion.sum(0) + confusion.sum(1) - hits
    return np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)


def _means(confusion: np.ndarray) -> dict:
    """mIoU and pixel accuracy in percent, NaN where no pixel counts."""
    ious = class_iou(confusion)
    found = ~np.isnan(ious)
    pixels = confusion.sum()
    return {
        "mIoU": 100 * float(ious[found].mean()) if found.any() else np.nan,
        "pixel_accuracy": 100 * float(np.trace(confusion) / pixels) if pixels else np.nan,
    }
