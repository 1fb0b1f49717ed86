"""From a detector's outputs to detections. Constants: docs/paper.md section 5."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from detection import boxes as box_lib

# Candidates that NMS looks at together. Of 128, 256 and 512 the fastest on a CPU; also the width
# of a TPU's vector registers.
_BLOCK = 128


class Detections(NamedTuple):
    """Detections of a batch, by falling score.

    Attributes:
      boxes: float32 `[batch, max_detections, 4]`.
      scores: float32 `[batch, max_detections]`.
      labels: int32 `[batch, max_detections]`; -1, with a box and a score of 0, where there is none.
      anchors: int32 `[batch, max_detections]`, the anchor that each was decoded from; 0 likewise.
    """

    boxes: jax.Array
    scores: jax.Array
    labels: jax.Array
    anchors: jax.Array


def decode(
    class_logits: jax.Array,
    box_codes: jax.Array,
    anchors: jax.Array,
    image_size: jax.typing.ArrayLike | Sequence[int],
    *,
    max_candidates: int = 5000,
    max_detections: int = 100,
    iou_threshold: float = 0.5,
    min_score: float = 0.0,
) -> Detections:
    """The best detections of each image, after NMS for each class.

    Images do not depend on one another. With a batch over several devices, call this inside
    `jax.shard_map(..., check_vma=False)`: XLA would gather the whole batch to sort it.

    Args:
      class_logits: `[batch, anchors, classes]`.
      box_codes: `[batch, anchors, 4]`.
      anchors: `[anchors, 4]`.
      image_size: `[height, width]` that boxes are cut to, `[2]` or, without padding, `[batch, 2]`.
      max_candidates: how many (anchor, class) pairs, the best over all levels, enter NMS.
      max_detections: how many detections leave it.
      iou_threshold: see `nms`.
      min_score: detections below are dropped.
    """
    image_size = jnp.broadcast_to(jnp.asarray(image_size), (class_logits.shape[0], 2))

    def of_image(class_logits, box_codes, image_size):
        logits, anchor_ids, labels = top_pairs(class_logits, max_candidates)
        boxes = box_lib.decode(box_codes[anchor_ids], jnp.asarray(anchors)[anchor_ids])
        boxes = box_lib.clip(boxes, image_size)
        scores = jax.nn.sigmoid(logits)
        # False for NaN: a diverged model detects nothing, rather than crash an evaluation.
        valid = (scores >= min_score) & jnp.isfinite(boxes).all(-1)
        labels = jnp.where(valid, labels, -1)
        kept = nms(boxes, labels, max_detections=max_detections, iou_threshold=iou_threshold)
        found = kept >= 0
        return Detections(
            jnp.where(found[:, None], boxes[kept], 0.0),
            jnp.where(found, scores[kept], 0.0),
            jnp.where(found, labels[kept], -1),
            jnp.where(found, anchor_ids[kept], 0),
        )

    return jax.vmap(of_image)(class_logits, box_codes, image_size)


def top_pairs(logits: jax.Array, count: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The `count` highest (anchor, class) pairs, or all; ties go to the lower anchor, then class.

    Args:
      logits: `[anchors, classes]`.
      count: number of pairs.

    Returns:
      Their logits, falling, anchors and classes, each `[min(count, anchors * classes)]`.
    """
    anchors, classes = logits.shape
    # A pair among the best `count` has an anchor whose best class is among the best `count`; so
    # most of the array is read once and never sorted. In rising order, for the ties.
    _, anchor_ids = jax.lax.top_k(logits.max(axis=-1), min(count, anchors))
    anchor_ids = jnp.sort(anchor_ids)
    top, pairs = jax.lax.top_k(logits[anchor_ids].reshape(-1), min(count, anchors * classes))
    return top, anchor_ids[pairs // classes], pairs % classes


def nms(
    boxes: jax.Array, labels: jax.Array, *, max_detections: int, iou_threshold: float = 0.5
) -> jax.Array:
    """Greedy non-maximum suppression, each class by itself.

    A candidate is kept unless its IoU with a better one of its class that was kept is above
    `iou_threshold`. Works block by block and stops at `max_detections`; the result is that of the
    literal greedy algorithm over all candidates.

    Args:
      boxes: `[candidates, 4]`, the best first.
      labels: int32 `[candidates]`; negative is no candidate.
      max_detections: how many to keep.
      iou_threshold: see above.

    Returns:
      int32 `[max_detections]`: indices of the kept, rising, then -1.
    """
    padding = -boxes.shape[0] % _BLOCK
    boxes = jnp.pad(boxes, ((0, padding), (0, 0))).reshape(-1, _BLOCK, 4)
    labels = jnp.pad(labels, (0, padding), constant_values=-1).reshape(-1, _BLOCK)
    earlier = jnp.arange(_BLOCK)[:, None] < jnp.arange(_BLOCK)[None, :]

    def suppresses(boxes, labels, others, other_labels):
        same = labels[:, None] == other_labels[None, :]
        return same & (box_lib.iou(boxes, others) > iou_threshold)

    def unfinished(state):
        block, count, *_ = state
        return (block < len(boxes)) & (count < max_detections)

    def next_block(state):
        block, count, kept, kept_boxes, kept_labels = state
        own_boxes, own_labels = boxes[block], labels[block]
        by_kept = suppresses(kept_boxes, kept_labels, own_boxes, own_labels).any(axis=0)
        keep = _greedy(
            (own_labels >= 0) & ~by_kept,
            suppresses(own_boxes, own_labels, own_boxes, own_labels) & earlier,
        )
        # Those beyond `max_detections` fall off the end.
        slots = jnp.where(keep, count + jnp.cumsum(keep) - 1, max_detections)
        return (
            block + 1,
            count + keep.sum(dtype=jnp.int32),
            kept.at[slots].set(block * _BLOCK + jnp.arange(_BLOCK, dtype=jnp.int32), mode="drop"),
            kept_boxes.at[slots].set(own_boxes, mode="drop"),
            kept_labels.at[slots].set(own_labels, mode="drop"),
        )

    none = jnp.full(max_detections, -1, jnp.int32)
    start = (jnp.int32(0), jnp.int32(0), none, jnp.zeros((max_detections, 4), boxes.dtype), none)
    return jax.lax.while_loop(unfinished, next_block, start)[2]


def _greedy(candidates, suppresses):
    """Keeps a candidate unless one that is kept suppresses it.

    Iterates "keep what nothing kept suppresses" until nothing changes. As suppression goes from
    earlier to later ones only, the n-th is right after n rounds at most, and the fixed point is
    the greedy result; real boxes need few rounds.

    Args:
      candidates: bool `[n]`.
      suppresses: bool `[n, n]`, `[i, j]` whether i suppresses j; False unless i < j.

    Returns:
      bool `[n]`.
    """

    def changed(state):
        return state[1]

    def once_more(state):
        keep, _ = state
        new = candidates & ~(suppresses & keep[:, None]).any(axis=0)
        return new, (new != keep).any()

    return jax.lax.while_loop(changed, once_more, (candidates, jnp.any(candidates)))[0]
