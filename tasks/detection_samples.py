"""What samples of a detector say: the mean over anchors, and the spread at what is detected."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import entr

from detection import boxes as box_lib
from training import monte_carlo, reliability
from training.monte_carlo import Moments, Spread

# Of each class against all else, at a detection.
_OF_CLASS = ("entropy", "expected_entropy", "mutual_information")


def sampled(out: dict, anchors: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Of one pass: each class against all else, and each anchor's box in pixels.

    Args:
      out: the detector's.
      anchors: `[anchors, 4]`.

    Returns:
      Log probabilities `[batch, anchors, classes, 2]`, and `boxes` `[batch, anchors, 4]`.
    """
    logits = out["class_logits"]
    log_p = jnp.stack([jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)], axis=-1)
    return log_p, {"boxes": jax.vmap(box_lib.decode, (0, None))(out["box_codes"], anchors)}


def averaged(spread: Spread, boxes: Moments, anchors: jax.Array) -> dict[str, Any]:
    """The detector's outputs that decode to the mean score and the mean box of each anchor."""
    return {
        "class_logits": spread.log_mean[..., 0] - spread.log_mean[..., 1],
        "box_codes": jax.vmap(box_lib.encode, (0, None))(boxes.mean, anchors),
        "spread": spread,
        "box_std": boxes.std,
    }


def at_detections(
    spread: Spread | None, box_std: jax.Array | None, anchors: jax.Array, labels: jax.Array
) -> dict[str, jax.Array]:
    """What is told of an image's spread at its detections: nothing where there are no samples.

    Args:
      spread, box_std: of `averaged`, of one image.
      anchors, labels: int32 `[detections]`, see `Detections`.

    Returns:
      `score_std`, `entropy`, `expected_entropy` and `mutual_information`, `[detections]`, and
      `box_std`, `[detections, 4]`.
    """
    if spread is None or box_std is None:
        return {}
    found = jax.tree.map(lambda x: x[anchors, jnp.maximum(labels, 0)], spread)
    of_class = {name: getattr(found, name) for name in _OF_CLASS}
    return {"score_std": found.std[..., 0], "box_std": box_std[anchors]} | of_class


def described(prediction: dict, chosen: np.ndarray) -> list[dict[str, Any]]:
    """The same of the chosen detections of one image, in JSON's types; a box's by its edges."""
    if "score_std" not in prediction:
        return [{} for _ in range(chosen.sum())]
    edges = prediction["box_std"][:, [1, 0, 3, 2]]
    told = {"score_std": prediction["score_std"], "edges_std": edges}
    told |= {name: prediction[name] for name in _OF_CLASS}
    rows = zip(*(values[chosen].tolist() for values in told.values()), strict=True)
    return [dict(zip(told, row, strict=True)) for row in rows]


def judge(found: dict[str, np.ndarray], right: np.ndarray, image: np.ndarray) -> dict[str, Any]:
    """How far detections may be trusted.

    Args:
      found: `scores`, and of samples what `at_detections` gives, each `[detections]`.
      right: bool `[detections]`, whether it is an object's.
      image: int `[detections]`, whose it is.

    Returns:
      `detections`, how many; `precision` in percent; `ece` of the scores; `auroc` of each of
      `monte_carlo.SCORES`, max_probability being what the score lacks to 1.
    """
    score = np.asarray(found["scores"], np.float64)
    unsure = {"entropy": entr(score) + entr(1.0 - score)} | found | {"max_probability": 1.0 - score}
    if "score_std" in found:
        unsure["std"] = found["score_std"]
    return {
        "detections": len(right),
        "precision": 100 * float(right.mean()) if len(right) else np.nan,
        "ece": reliability.ece(*reliability.calibration(score, right)),
        "auroc": {
            name: reliability.auroc(unsure[name], right, ~right, image)
            for name in monte_carlo.SCORES
            if name in unsure
        },
    }
