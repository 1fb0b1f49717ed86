"""What samples of a segmenter say of each pixel: maps, and how far they may be trusted."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import entr, softmax

from tasks.base import PixelMap
from training import monte_carlo, reliability

# What of the spread is interpolated beside the mean; the entropy is that of the pixel's own mean.
SPREAD = ("expected_entropy", "mutual_information", "std")
_MAPS = ("probability", "std", "entropy", "mutual_information")


def spread_of(out: dict) -> jax.Array:
    """`[batch, height, width, 3]`, of `SPREAD` where the logits are; `[..., 0]` without samples."""
    if "spread" not in out:
        return out["logits"][..., :0]
    found = monte_carlo.scores(out["logits"], out["spread"])
    return jnp.stack([found[name] for name in SPREAD], axis=-1)


def scores(log_p: jax.Array, spread: jax.Array) -> list[jax.Array]:
    """`monte_carlo.scores` of an image's pixels, each `[height, width]`, in their order.

    Args:
      log_p: `[height, width, classes]`.
      spread: `[height, width, 3]`, of `SPREAD`, or without samples `[..., 0]`.
    """
    found = monte_carlo.scores(log_p)
    found |= dict(zip(SPREAD, jnp.moveaxis(spread, -1, 0), strict=False))
    return [found[name] for name in monte_carlo.SCORES if name in found]


def judge(collected: dict[str, np.ndarray]) -> dict[str, Any]:
    """`nll` in nats, `ece`, and `auroc` of each score, of all pixels.

    Args:
      collected: `reliability.pixel_sums` of each image.
    """
    counts, right, confidence = collected["calibration"].sum(0, dtype=np.float64)
    histograms = np.moveaxis(collected["histograms"], 1, 0)
    return {
        "nll": float(collected["nll"].sum(dtype=np.float64) / max(counts.sum(), 1)),
        "ece": reliability.ece(counts, right, confidence),
        "auroc": {
            name: reliability.auroc_of_histograms(histogram)
            for name, histogram in zip(monte_carlo.SCORES, histograms, strict=False)
        },
    }


def shares(values: np.ndarray, classes: int) -> np.ndarray:
    """The numbers of `maps` at some pixels, uint16 `[..., 4]`, each of the highest it can be.

    Args:
      values: `[..., classes + 3]`, interpolated logits and `SPREAD`.
      classes: how many.
    """
    p = softmax(values[..., :classes], axis=-1)
    spread = dict(zip(SPREAD, np.moveaxis(values[..., classes:], -1, 0), strict=True))
    found = {"probability": p.max(-1), "entropy": entr(p).sum(-1)} | spread
    stacked = np.stack([found[name] for name in _MAPS], axis=-1) / _highest(classes)
    return np.round(65535 * np.clip(stacked, 0.0, 1.0)).astype(np.uint16)


def maps(shares: np.ndarray, classes: int) -> dict[str, PixelMap]:
    """Of an image's pixels the likeliest class's mean `probability` and that one's `std`; `entropy`
    and `mutual_information` in nats, see `monte_carlo.Spread`.
    """
    scales = (_highest(classes) / 65535).tolist()
    images = np.moveaxis(shares, -1, 0)
    return dict(zip(_MAPS, map(PixelMap, images, scales), strict=True))


def _highest(classes):
    entropy = math.log(max(classes, 2))
    return np.array([1.0, 0.5, entropy, entropy])
