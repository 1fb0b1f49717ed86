"""RetinaNet's loss, of optax's parts. Constants: docs/paper.md section 5."""

import jax
import jax.numpy as jnp
import optax

from detection.matching import Targets


def detection_loss(
    class_logits: jax.Array,
    box_codes: jax.Array,
    targets: Targets,
    *,
    alpha: float = 0.25,
    gamma: float = 1.5,
    delta: float = 0.1,
    box_weight: float = 50.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Focal loss over all anchors and Huber loss over those with an object.

    With P the batch's number of anchors with an object:
    `loss = sum(focal) / (P + 1) + box_weight * sum(huber) / (4 * (P + 1))`.

    Args:
      class_logits: `[batch, anchors, classes]`.
      box_codes: `[batch, anchors, 4]`.
      targets: what they should be.
      alpha, gamma: weight of an anchor's own class, and focusing exponent.
      delta: error of a code beyond which Huber is linear.
      box_weight: of the box loss.

    Returns:
      The loss, and its parts: `class_loss`, `box_loss` (before its weight), `positives`.
    """
    positive = targets.labels >= 0
    positives = positive.sum(dtype=jnp.float32)
    normalizer = positives + 1.0
    own_class = jax.nn.one_hot(targets.labels, class_logits.shape[-1])  # zeros for background
    focal = optax.sigmoid_focal_loss(class_logits, own_class, alpha=alpha, gamma=gamma)
    huber = optax.huber_loss(box_codes, targets.codes, delta=delta)
    class_loss = focal.sum() / normalizer
    box_loss = jnp.where(positive[..., None], huber, 0.0).sum() / (4.0 * normalizer)
    return class_loss + box_weight * box_loss, {
        "class_loss": class_loss,
        "box_loss": box_loss,
        "positives": positives,
    }
