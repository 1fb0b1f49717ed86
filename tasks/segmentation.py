"""Semantic segmentation: data, model, loss, one exact confusion matrix, pictures."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import matplotlib.figure
import matplotlib.patches
import numpy as np
import optax
from flax import nnx

from dropblock import checks
from inputs.joint_transforms import IGNORE, segmentation_transform
from inputs.segmentation_sources import SegmentationSource, segmentation_source
from inputs.transforms import ExampleTransform
from models.fcn import FCN
from models.resnet import Norm
from tasks.base import Task, mean_color


class Segmentation(Task):
    """What segmentation adds to the training loop.

    Attributes:
      own_keep_probs: of what the model drops besides the sites of `config.drop`: nothing.
      stride: of the logits; cell i lies on pixel `stride * i`.
    """

    best_metric = "mIoU"
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
        self.own_keep_probs = {}
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
            scenes=data.scenes.to_dict(),
        )

    def transform(self, train: bool) -> ExampleTransform:
        data = self.config.data
        return segmentation_transform(
            image_size=data.image_size,
            train=train,
            scale=tuple(data.scale),
            flip=data.flip,
            fill=mean_color(data),
            max_size=None if train else self.eval.max_size,
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

    def make_model(self, rngs: nnx.Rngs) -> nnx.Module:
        """The network, with the classes of the data."""
        model = self.config.model
        return FCN(
            model.depth,
            len(self.class_names),
            in_channels=self.config.data.channels,
            stem=model.stem,
            stem_stride=model.stem_stride,
            width_multiplier=model.width_multiplier,
            min_level=model.min_level,
            max_level=model.max_level,
            fpn_channels=model.fpn_channels,
            head_convs=model.head_convs,
            head_channels=model.head_channels,
            drop=self.drop,
            norm=Norm(model.bn_momentum, model.bn_epsilon),
            dtype=jnp.dtype(self.config.dtype),
            rngs=rngs,
        )

    def loss(self, out: dict, batch: dict) -> tuple[jax.Array, dict]:
        """Mean softmax cross-entropy of the pixels that count, and the metrics' sums.

        Labels are taken where the logits' cells lie, on every `stride`-th pixel (docs/paper.md
        section 6). The mean is over the whole batch; of no pixels it is 0.
        """
        logits, labels = out["logits"], batch["label"][:, :: self.stride, :: self.stride]
        counts = labels != IGNORE
        losses = optax.softmax_cross_entropy_with_integer_labels(
            logits, jnp.where(counts, labels, 0).astype(jnp.int32)
        )
        total = jnp.sum(jnp.where(counts, losses, 0.0))
        confusion = confusion_matrix(labels, logits.argmax(-1), logits.shape[-1])
        return total / jnp.maximum(counts.sum(), 1), {"loss": total, "confusion": confusion}

    def predict(self, out: dict, batch: dict, by_device: Callable) -> dict:
        """What is evaluated and drawn, at each image's own size.

        Returns:
          `classes`: uint8 `[batch, *max_size]`, of each pixel; `confusion`: int32 `[batch, classes,
          classes]`, see `confusion_matrix`.
        """

        def of_example(example):
            logits, label, scale = example
            logits = resize_to_original(logits, self.stride, scale, label.shape)
            classes = logits.argmax(-1).astype(jnp.uint8)
            return {
                "classes": classes,
                "confusion": confusion_matrix(label, classes, logits.shape[-1]),
            }

        # One after another: the logits of all at their original size would fill the memory.
        return by_device(lambda *arrays: jax.lax.map(of_example, arrays))(
            out["logits"], batch["label"], batch["scale"]
        )

    def eval_sums(self, predictions: dict, batch: dict) -> dict:
        """The confusion matrix over the examples that `batch["mask"]` keeps."""
        mask = batch["mask"]
        confusion = jnp.where(mask[:, None, None], predictions["confusion"], 0)
        return {"confusion": confusion.sum(0), "count": mask.sum()}

    def summarize(self, sums: dict) -> dict:
        """Metrics of a training step: `loss`, and `mIoU` and `pixel_accuracy` in percent."""
        pixels = max(float(np.sum(sums["confusion"])), 1.0)
        return {"loss": float(sums["loss"]) / pixels} | _means(np.asarray(sums["confusion"]))

    def score(self, sums: dict, collected: dict) -> dict:
        """`mIoU`, `pixel_accuracy` and each class's `IoU/<class>`, in percent.

        A class that is neither in a mask nor predicted anywhere has no IoU and counts for nothing;
        one that is predicted though in no mask has 0 (docs/paper.md section 7).
        """
        ious = 100 * class_iou(sums["confusion"])
        return _means(sums["confusion"]) | {
            f"IoU/{name}": float(iou)
            for name, iou in zip(self.class_names, ious, strict=True)
            if not np.isnan(iou)
        }

    # --- Pictures.

    def draw(self, predictions: dict, batch: dict, limit: int = 6) -> matplotlib.figure.Figure:
        """The first images of a batch, their masks, and what is predicted."""
        classes, labels = np.asarray(predictions["classes"]), np.asarray(batch["label"])
        sizes, scales = np.asarray(batch["original_size"]), np.asarray(batch["scale"])
        shown = np.flatnonzero(batch["mask"])[:limit]
        rows = max(len(shown), 1)
        figure = matplotlib.figure.Figure((7.5, 2.5 * rows + 0.5), layout="constrained")
        axes = figure.subplots(rows, 3, squeeze=False)
        for axis, title in zip(axes[0], ("image", "truth", "prediction"), strict=True):
            axis.set_title(title)
        for axis in axes.flat:
            axis.axis("off")
        found = set()
        for row, index in zip(axes, shown, strict=False):
            height, width = sizes[index]
            seen = np.round(sizes[index] * scales[index]).astype(int)  # without its padding
            image = np.asarray(batch["image"])[index, : seen[0], : seen[1]]
            row[0].imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, "gray")
            for axis, mask in zip(row[1:], (labels[index], classes[index]), strict=True):
                mask = mask[:height, :width]
                axis.imshow(PALETTE[mask], interpolation="nearest")
                found |= set(np.unique(mask).tolist())
        names = {IGNORE: "ignored"} | dict(enumerate(self.class_names))
        patches = [
            matplotlib.patches.Patch(fc=PALETTE[i] / 255, ec="gray", label=names[i])
            for i in sorted(found)
        ]
        figure.legend(handles=patches, loc="outside lower center", ncols=6, fontsize=8)
        return figure


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

    def weights(count, cells, scale):
        positions = ((jnp.arange(count) + 0.5) * scale - 0.5) / stride
        positions = jnp.clip(positions, 0.0, cells - 1.0)
        return jnp.maximum(1.0 - jnp.abs(positions[:, None] - jnp.arange(cells)[None, :]), 0.0)

    rows, columns = (weights(*axis) for axis in zip(size, logits.shape, scale, strict=False))
    return jnp.einsum("hwc,yh,xw->yxc", logits, rows, columns, precision="highest")


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


def _palette() -> np.ndarray:
    """Colours of the 256 mask values, uint8 `[256, 3]`: PASCAL VOC's, which spreads the bits."""
    values = np.arange(256)
    colors = np.zeros((256, 3), int)
    for bit in range(3):
        for channel in range(3):
            colors[:, channel] |= (values >> (3 * bit + channel) & 1) << (7 - bit)
    return colors.astype(np.uint8)


PALETTE = _palette()
