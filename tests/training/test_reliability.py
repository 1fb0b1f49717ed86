"""Calibration and AUROC against their definitions, and the interval against the bootstrap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from training import monte_carlo, reliability


def area(score, right, wrong):
    """Of all pairs of a wrong and a right prediction, one for one."""
    higher = (score[:, None] > score[None, :]) + 0.5 * (score[:, None] == score[None, :])
    return (wrong[:, None] * right[None, :] * higher).sum() / (wrong.sum() * right.sum())


def test_auroc_is_the_share_of_pairs_in_order_and_ties_count_half():
    random = np.random.default_rng(0)
    score = random.integers(0, 6, 40).astype(float)
    right, wrong = random.integers(0, 4, 40), random.integers(0, 3, 40)
    found = reliability.auroc(score, right, wrong)
    assert found is not None and found["value"] == pytest.approx(area(score, right, wrong))
    perfect = reliability.auroc(np.array([1, 2, 3]), np.array([1, 1, 0]), np.array([0, 0, 1]))
    assert perfect == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert reliability.auroc(score, right, np.zeros(40)) is None
    assert reliability.auroc(score, np.zeros(40), wrong) is None


@pytest.mark.parametrize("clustered", [False, True])
def test_the_interval_is_that_of_a_bootstrap_over_images(clustered):
    random = np.random.default_rng(1)
    images = 60
    image = np.repeat(np.arange(images), 20) if clustered else np.arange(300)
    # What an image's predictions share makes its interval wider than that of so many images.
    shared = random.normal(size=(image.max() + 1, 2))[image] if clustered else 0.0
    own = random.normal(size=(len(image), 2)) + shared
    wrong = own[:, 0] > 1.0
    score = own[:, 0] + own[:, 1]
    found = reliability.auroc(score, ~wrong, wrong, image)
    assert found is not None
    rows = [np.flatnonzero(image == number) for number in range(image.max() + 1)]
    areas = []
    for _ in range(400):
        drawn = np.concatenate([rows[i] for i in random.integers(0, len(rows), len(rows))])
        again = reliability.auroc(score[drawn], ~wrong[drawn], wrong[drawn])
        assert again is not None
        areas.append(again["value"])
    half = (found["high"] - found["low"]) / 2
    assert half == pytest.approx(1.96 * np.std(areas), rel=0.15)
    naive = reliability.auroc(score, ~wrong, wrong)
    assert naive is not None
    assert (half > 1.2 * (naive["high"] - naive["low"]) / 2) == clustered


def test_ece_is_the_mean_gap_between_confidence_and_accuracy():
    # Two bins: 3 of 4 right at 0.9, 1 of 2 right at 0.5 and 0.52.
    confidence = np.array([0.9, 0.9, 0.9, 0.9, 0.5, 0.52])
    right = np.array([True, True, True, False, True, False])
    counts, hits, sums = reliability.calibration(confidence, right)
    assert len(counts) == 15 and counts.sum() == 6
    gap = (4 * abs(0.75 - 0.9) + 2 * abs(0.5 - 0.51)) / 6
    assert reliability.ece(counts, hits, sums) == pytest.approx(gap)
    sure = reliability.calibration(np.ones(3), np.ones(3, bool))
    assert reliability.ece(*sure) == 0.0 and sure[0][-1] == 3


def test_sums_of_pixels_are_those_of_single_predictions():
    random = np.random.default_rng(2)
    ignore, shape = 255, (4, 9, 11)
    logits = 3 * random.normal(size=(*shape, 5))
    labels = random.integers(0, 5, shape).astype(np.uint8)
    labels = np.where(random.random(shape) < 0.5, logits.argmax(-1), labels)
    labels[random.random(shape) < 0.2] = ignore
    log_p = jax.nn.log_softmax(jnp.asarray(logits, jnp.float32))
    scores = monte_carlo.scores(log_p)
    found = jax.vmap(
        lambda log_p, labels, *scores: reliability.pixel_sums(log_p, list(scores), labels, ignore)
    )(log_p, jnp.asarray(labels, jnp.uint8), *scores.values())
    histograms = np.asarray(found["histograms"])

    counts = labels != ignore
    p, truth = softmax(logits, axis=-1)[counts], labels[counts]
    right, confidence = p.argmax(-1) == truth, p.max(-1)
    assert float(found["nll"].sum()) == pytest.approx(
        -np.log(p[np.arange(len(p)), truth]).sum(), rel=1e-5
    )
    np.testing.assert_allclose(
        np.asarray(found["calibration"]).sum(0),
        np.stack(reliability.calibration(confidence, right)),
        rtol=1e-5,
    )
    image = np.nonzero(counts)[0]
    for index, values in enumerate(scores.values()):
        exact = reliability.auroc(np.asarray(values)[counts], right, ~right, image)
        binned = reliability.auroc_of_histograms(histograms[:, index])
        assert exact is not None and binned == pytest.approx(exact, abs=0.02)
        assert histograms[:, index].sum((0, 1)).tolist() == [right.sum(), (~right).sum()]


def test_scores_that_are_0_or_of_a_diverged_network_are_counted():
    log_p = jnp.zeros((1, 3, 2)) - jnp.log(2.0)
    score = jnp.array([[0.0, jnp.nan, jnp.inf]])
    labels = jnp.array([[0, 1, 1]], jnp.uint8)
    histogram = np.asarray(reliability.pixel_sums(log_p, [score], labels, 255)["histograms"])
    assert histogram[0, 0].tolist() == [1, 0] and histogram[0, -1].tolist() == [0, 2]
