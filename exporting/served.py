"""What an exported network of each task takes and gives: one table, `SERVED`.

What it takes is what the host makes of an image; the normalisation, the network in eval mode and
the decoding are inside.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from detection import boxes as box_lib
from exporting import preparation
from prediction.cam import activation_maps
from tasks.base import Task
from tasks.segmentation import resize_to_original

MAP = "activation_map"


class Array(NamedTuple):
    """An input: its shape without the batch, its dtype, and what it means."""

    shape: tuple[int, ...]
    dtype: Any
    meaning: str


@dataclasses.dataclass(frozen=True)
class Served:
    """One kind of network.

    Attributes:
      decode: `(task, params, out, inputs) -> outputs`: of the network's parameters, its outputs and
        what it was given, by name, arrays by name; each begins with the batch.
      outputs: what each of them means; of those that a network does not have, too.
      preparation: `config -> dict`, how the host makes the inputs of an image.
      inputs: what it takes besides `image`, by name.
      decoding: `task -> dict`, the numbers of the decoding, for who wants to know.
      predictions: `(outputs, batch) -> dict`: what `describe` of the task takes, of the outputs and
        the batch that they are of.
      before_nms: as `decode`, where NMS is to follow: `class_logits` `[batch, anchors, classes]`,
        `compared_boxes` `[batch, anchors, 4]`, and `original_boxes` that are given.
    """

    decode: Callable[[Task, Any, dict, dict], dict]
    outputs: dict[str, str]
    preparation: Callable[[Any], dict]
    inputs: dict[str, Array] = dataclasses.field(default_factory=dict)
    decoding: Callable[[Any], dict] = lambda task: {}
    predictions: Callable[[dict, dict], dict] = lambda outputs, batch: outputs
    before_nms: Callable[[Task, Any, dict, dict], dict] | None = None

    def all_inputs(self, config) -> dict[str, Array]:
        """What the function takes, in its order."""
        data = config.data
        shape = (data.image_size, data.image_size, data.channels)
        image = Array(shape, np.dtype(np.uint8), _COLOURS.get(data.channels, "channels"))
        return {"image": image} | self.inputs


_COLOURS = {1: "gray values", 3: "red, green, blue", 4: "red, green, blue, alpha"}


def _classified(task, params, out, inputs):
    logits = out["logits"].astype(jnp.float32)
    outputs = {"logits": logits, "probabilities": jax.nn.softmax(logits)}
    features = task.architecture.features
    if features is not None:
        kernel = params["head"]["kernel"]
        outputs[MAP] = activation_maps(features(out), kernel, logits.argmax(-1))
    return outputs


def _detected(task, params, out, inputs):
    return task.detect(out, inputs["original_size"], inputs["scale"])


def _before_nms(task, params, out, inputs):
    scale = jnp.where(inputs["scale"] > 0, inputs["scale"], 1.0)  # 0 in rows of padding
    scale = jnp.tile(scale, (1, 2))[:, None, :]
    original = jnp.tile(inputs["original_size"].astype(jnp.float32), (1, 2))[:, None, :]
    boxes = box_lib.decode(out["box_codes"], jnp.asarray(task.anchors)[None])
    boxes = jnp.clip(boxes, 0.0, original * scale)
    return {
        "class_logits": out["class_logits"],
        "compared_boxes": boxes,
        "original_boxes": jnp.minimum(boxes / scale, original),
    }


def _segmented(task, params, out, inputs):
    size = inputs["image"].shape[1:3]
    one = jnp.ones(2, jnp.float32)
    logits = out["logits"].astype(jnp.float32)
    whole = jax.vmap(lambda x: resize_to_original(x, task.stride, one, size))(logits)
    return {"logits": logits, "classes": whole.argmax(-1).astype(jnp.uint8)}


def _on_photograph(outputs, batch):
    # `classes` are of the network's image; the task interpolates at the photograph's pixels.
    return {name: batch[name] for name in ("scale", "original_size")} | {
        "logits": outputs["logits"]
    }


def _constants(task):
    names = ("max_candidates", "max_detections", "nms_iou", "min_score")
    return {name: task.config.detection[name] for name in names} | {"done": "inside"}


SERVED = {
    "classification": Served(
        _classified,
        {
            "logits": "of each class",
            "probabilities": "of each class: the softmax of the logits",
            MAP: "the class activation map of the likeliest class, on the last map's rows and "
            "columns: where it is large lies the evidence; its mean is the logit less its bias",
        },
        preparation.of_classifier,
    ),
    "detection": Served(
        _detected,
        {
            "boxes": "[ymin, xmin, ymax, xmax] in pixels of the original image, by falling score, "
            "after non-maximum suppression for each class",
            "scores": "of each box, in [0, 1]; 0 where there is none",
            "labels": "index into classes; -1 where there is no box",
        },
        preparation.of_pyramid,
        inputs={
            "original_size": Array((2,), np.dtype(np.int32), "height and width of the photograph"),
            "scale": Array(
                (2,),
                np.dtype(np.float32),
                "what its rows and columns were multiplied with: resized size / original size",
            ),
        },
        decoding=_constants,
        before_nms=_before_nms,
    ),
    "segmentation": Served(
        _segmented,
        {
            "logits": "of each class, on every stride-th row and column of image from the first",
            "classes": "index into classes of each pixel of image, by logits interpolated there",
        },
        preparation.of_pyramid,
        decoding=lambda task: {"stride": task.stride},
        predictions=_on_photograph,
    ),
}
