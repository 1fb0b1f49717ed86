"""How far predictions may be trusted: calibration, and telling right from wrong ones."""

import jax
import jax.numpy as jnp
import numpy as np

# Bins of equal width of the confidence, as in Guo et al. 2017, "On Calibration of Modern Neural
# Networks".
BINS = 15
# A pixel's score is held in bins of equal ratio, 9 an octave, between these powers of 2: a set has
# more pixels than there is room for, and a score's order alone counts.
_SCORE_BINS, _LOWEST, _HIGHEST = 256, -24, 4
# Half the width of a 95 % interval of a normal variable, in standard deviations.
_NORMAL_95 = 1.96


def calibration(confidence: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, ...]:
    """Predictions, right ones and the sum of confidences, each `[BINS]`, by confidence.

    Args:
      confidence: `[n]` in [0, 1], the probability of what was predicted.
      right: bool `[n]`, whether it was so.
    """
    bins = np.minimum((np.asarray(confidence, np.float64) * BINS).astype(int), BINS - 1)
    parts = (None, right, confidence)
    return tuple(np.bincount(bins, part, minlength=BINS).astype(float) for part in parts)


def ece(counts: np.ndarray, right: np.ndarray, confidence: np.ndarray) -> float:
    """Expected calibration error in [0, 1]: |accuracy - confidence|, mean over predictions by bins.

    Args:
      counts, right, confidence: see `calibration`.
    """
    return float(np.abs(np.asarray(right) - confidence).sum() / max(np.sum(counts), 1))


def auroc(
    score: np.ndarray, right: np.ndarray, wrong: np.ndarray, image: np.ndarray | None = None
) -> dict[str, float] | None:
    """How well a score tells wrong from right predictions, with its 95 % interval.

    The area under the ROC curve is the probability that of a wrong and a right prediction the wrong
    one has the higher score, ties counting half. Predictions of one image are no independent ones:
    the interval is by the variance of what each image adds to the area (for single predictions
    DeLong et al. 1988).

    Args:
      score: `[n]`, the higher the less sure.
      right, wrong: `[n]`, how many right and wrong predictions have that score.
      image: int `[n]`, whose they are; by default each has its own.

    Returns:
      `value`, `low` and `high`; None where all are right, or all wrong.
    """
    right, wrong = np.asarray(right, np.float64), np.asarray(wrong, np.float64)
    image = np.arange(len(right)) if image is None else image
    if not right.sum() or not wrong.sum():
        return None
    values, bins = np.unique(score, return_inverse=True)
    rights, wrongs = (np.bincount(bins, n, minlength=len(values)) for n in (right, wrong))
    # Of each score: the share of right ones below it, and of wrong ones above.
    below = (np.cumsum(rights) - rights / 2) / rights.sum()
    above = 1.0 - (np.cumsum(wrongs) - wrongs / 2) / wrongs.sum()
    area = float(wrongs @ below / wrongs.sum())
    # What an image adds, less what one of its weight would if it were like all.
    added = (
        wrong * (below[bins] - area) / wrongs.sum() + right * (above[bins] - area) / rights.sum()
    )
    parts = np.bincount(np.unique(image, return_inverse=True)[1], added)
    count = len(parts)
    error = _NORMAL_95 * float(np.sqrt((parts**2).sum() * count / max(count - 1, 1)))
    return {"value": area, "low": max(area - error, 0.0), "high": min(area + error, 1.0)}


def pixel_sums(
    log_probabilities: jax.Array, scores: list[jax.Array], labels: jax.Array, ignore: int
) -> dict[str, jax.Array]:
    """What `ece` and `auroc_of_histograms` need of an image's pixels; to be traced.

    Args:
      log_probabilities: `[height, width, classes]`.
      scores: each `[height, width]`, the higher the less sure; not negative.
      labels: uint8 `[height, width]`.
      ignore: the label of pixels that do not count.

    Returns:
      `nll`: the sum over pixels; `calibration`: float32 `[3, BINS]`, see `calibration`;
      `histograms`: int32 `[scores, bins, 2]`, right and wrong pixels.
    """
    counts = labels != ignore
    truth = jnp.where(counts, labels, 0).astype(jnp.int32)
    nll = -jnp.take_along_axis(log_probabilities, truth[..., None], axis=-1)[..., 0]
    wrong = log_probabilities.argmax(-1) != truth
    confidence = jnp.exp(log_probabilities.max(-1))
    bins = jnp.minimum((confidence * BINS).astype(jnp.int32), BINS - 1)
    parts = jnp.stack([counts, counts & ~wrong, jnp.where(counts, confidence, 0.0)], axis=-1)

    def histogram(score):
        # 0, and NaN of a diverged network, are in the first and last.
        place = (jnp.log2(score) - _LOWEST) * (_SCORE_BINS / (_HIGHEST - _LOWEST))
        place = jnp.nan_to_num(jnp.clip(place, 0, _SCORE_BINS - 1), nan=_SCORE_BINS - 1)
        cells = 2 * place.astype(jnp.int32) + wrong
        found = jnp.zeros(2 * _SCORE_BINS, jnp.int32).at[cells].add(counts.astype(jnp.int32))
        return found.reshape(-1, 2)

    return {
        "nll": jnp.sum(jnp.where(counts, nll, 0.0)),
        "calibration": jnp.zeros((BINS, 3)).at[bins].add(parts).T,
        "histograms": jnp.stack([histogram(score) for score in scores]),
    }


def auroc_of_histograms(histograms: np.ndarray) -> dict[str, float] | None:
    """`auroc` of a score of which each image's histogram is known.

    Args:
      histograms: `[images, bins, 2]`, see `pixel_sums`.
    """
    image, bins = np.nonzero(histograms.any(-1))
    right, wrong = histograms[image, bins].T
    return auroc(bins, right, wrong, image)
