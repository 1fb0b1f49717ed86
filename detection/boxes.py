"""Boxes `[ymin, xmin, ymax, xmax]` in pixels: areas, overlaps, and codes relative to anchors."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

# Keeps the logarithm of a box without area finite. docs/paper.md section 5.
_EPSILON = 1e-8


def area(boxes: jax.Array) -> jax.Array:
    """Areas `[...]` of boxes `[..., 4]` in square pixels; 0 where an edge is turned around."""
    ymin, xmin, ymax, xmax = jnp.moveaxis(boxes, -1, 0)
    return jnp.maximum(ymax - ymin, 0.0) * jnp.maximum(xmax - xmin, 0.0)


def iou(boxes: jax.Array, others: jax.Array) -> jax.Array:
    """Intersection over union of each of `boxes` with each of `others`.

    Coordinates are continuous: a box from 0 to 1 is one pixel wide. (The authors' evaluation adds
    a pixel to each side; docs/paper.md section 8.)

    Args:
      boxes: `[..., n, 4]`.
      others: `[..., m, 4]`.

    Returns:
      `[..., n, m]` in [0, 1]; 0 where both boxes have no area.
    """
    ymin, xmin, ymax, xmax = jnp.moveaxis(boxes[..., :, None, :], -1, 0)
    other_ymin, other_xmin, other_ymax, other_xmax = jnp.moveaxis(others[..., None, :, :], -1, 0)
    height = jnp.minimum(ymax, other_ymax) - jnp.maximum(ymin, other_ymin)
    width = jnp.minimum(xmax, other_xmax) - jnp.maximum(xmin, other_xmin)
    intersection = jnp.maximum(height, 0.0) * jnp.maximum(width, 0.0)
    union = area(boxes)[..., :, None] + area(others)[..., None, :] - intersection
    return intersection / jnp.where(union > 0.0, union, 1.0)


def clip(boxes: jax.Array, size: jax.typing.ArrayLike | Sequence[int]) -> jax.Array:
    """Boxes `[..., 4]` cut at the image's edges.

    Args:
      boxes: `[..., n, 4]`.
      size: `[height, width]` of the image, `[..., 2]`.
    """
    size = jnp.asarray(size, boxes.dtype)[..., None, :]
    return jnp.clip(boxes, 0.0, jnp.concatenate([size, size], axis=-1))


def encode(boxes: jax.Array, anchors: jax.Array) -> jax.Array:
    """Codes `[ty, tx, th, tw]` of boxes relative to anchors, both `[..., 4]`; Faster R-CNN's.

    ty = (y - y_a) / h_a and th = log(h / h_a), of centres and sides, without factors of scale.
    Source: docs/paper.md section 5.
    """
    y, x, height, width = _centres_and_sides(boxes)
    anchor_y, anchor_x, anchor_height, anchor_width = (
        part + offset
        for part, offset in zip(
            _centres_and_sides(anchors), (0.0, 0.0, _EPSILON, _EPSILON), strict=True
        )
    )
    return jnp.stack(
        [
            (y - anchor_y) / anchor_height,
            (x - anchor_x) / anchor_width,
            jnp.log((height + _EPSILON) / anchor_height),
            jnp.log((width + _EPSILON) / anchor_width),
        ],
        axis=-1,
    )


def decode(codes: jax.Array, anchors: jax.Array) -> jax.Array:
    """Boxes `[..., 4]` from codes and anchors `[..., 4]`: the inverse of `encode`."""
    ty, tx, th, tw = jnp.moveaxis(codes, -1, 0)
    anchor_y, anchor_x, anchor_height, anchor_width = _centres_and_sides(anchors)
    y, x = ty * anchor_height + anchor_y, tx * anchor_width + anchor_x
    half_height, half_width = jnp.exp(th) * anchor_height / 2, jnp.exp(tw) * anchor_width / 2
    return jnp.stack([y - half_height, x - half_width, y + half_height, x + half_width], axis=-1)


def _centres_and_sides(boxes):
    """`y, x, height, width`, each `[...]`, of boxes `[..., 4]`."""
    ymin, xmin, ymax, xmax = jnp.moveaxis(boxes, -1, 0)
    return (ymin + ymax) / 2, (xmin + xmax) / 2, ymax - ymin, xmax - xmin
