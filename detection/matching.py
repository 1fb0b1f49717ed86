"""What each anchor is to predict. Constants: docs/paper.md section 5."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from detection import boxes as box_lib


class Targets(NamedTuple):
    """Targets of a batch's anchors.

    Attributes:
      labels: int32 `[batch, anchors]`, -1 is background.
      codes: float32 `[batch, anchors, 4]`, of the anchor's object; 0 for background.
    """

    labels: jax.Array
    codes: jax.Array


def match(
    boxes: jax.Array, labels: jax.Array, anchors: jax.Array, iou_threshold: float = 0.5
) -> jax.Array:
    """The object of each anchor of an image.

    An anchor belongs to the object with which its IoU is highest, if that is at least
    `iou_threshold`; and every object gets the anchor with which its IoU is highest, however low.
    Ties go to the lower index, of objects and of anchors; an anchor that is the best of several
    objects gets the first of them.

    Args:
      boxes: `[objects, 4]`.
      labels: int32 `[objects]`, -1 is padding.
      anchors: `[anchors, 4]`.
      iou_threshold: there is no band of anchors that are neither object nor background.

    Returns:
      int32 `[anchors]`, an index into `boxes`, or -1 for background.
    """
    objects = jnp.arange(labels.shape[0], dtype=jnp.int32)
    overlaps = jnp.where(labels[:, None] >= 0, box_lib.iou(boxes, anchors), -1.0)
    matches = jnp.argmax(overlaps, axis=0).astype(jnp.int32)
    matches = jnp.where(overlaps.max(axis=0) >= iou_threshold, matches, -1)
    # A box that touches no anchor at all, as padding, forces none.
    best = jnp.where(overlaps.max(axis=1) > 0.0, jnp.argmax(overlaps, axis=1), anchors.shape[0])
    forced = jnp.full(anchors.shape[0], labels.shape[0], jnp.int32)
    forced = forced.at[best].min(objects, mode="drop")
    return jnp.where(forced < labels.shape[0], forced, matches)


def make_targets(
    boxes: jax.Array, labels: jax.Array, anchors: jax.Array, iou_threshold: float = 0.5
) -> Targets:
    """Class and box code that each anchor of a batch is to predict; see `match`.

    Args:
      boxes: `[batch, max_boxes, 4]`.
      labels: int32 `[batch, max_boxes]`, contiguous from 0; -1 is padding. An image may have no
        box at all: its anchors are all background.
      anchors: `[anchors, 4]`.
      iou_threshold: an anchor with at least this IoU with an object is its.
    """

    def of_image(boxes, labels):
        matches = match(boxes, labels, anchors, iou_threshold)
        positive = matches >= 0
        codes = box_lib.encode(boxes[matches], anchors)
        return Targets(
            jnp.where(positive, labels[matches], -1).astype(jnp.int32),
            jnp.where(positive[:, None], codes, 0.0),
        )

    return jax.vmap(of_image)(boxes, labels)
