"""Figures 5 and 6: their numbers by hand; test_real_runs.py has them on trained networks."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

import processes
from experiments import figure5, figure6
from prediction.cam import activation_maps


def test_figure5_has_the_papers_points():
    page = (processes.ROOT / "docs" / "paper.md").read_text()
    lines = re.findall(r"^\| \([ab]\) [17] \|.*$", page, re.M)
    assert len(lines) == len(figure5.PAPER) == 6
    for line, accuracies in zip(lines, figure5.PAPER.values(), strict=True):
        printed = [100 * float(cell) for cell in re.findall(r" (\.\d+)", line)]
        assert printed == pytest.approx(accuracies)


def test_activation_maps_against_the_sum_over_channels():
    random = np.random.default_rng(0)
    features = random.normal(size=(3, 4, 5, 6)).astype(np.float32)
    kernel = random.normal(size=(6, 10)).astype(np.float32)
    labels = np.array([7, 0, 7])
    got = activation_maps(jnp.asarray(features), jnp.asarray(kernel), jnp.asarray(labels))
    for image, label, own in zip(features, labels, got, strict=True):
        want = sum(kernel[channel, label] * image[..., channel] for channel in range(6))
        np.testing.assert_allclose(own, want, rtol=1e-4, atol=1e-5)
    # The logit, less its bias, is the map's mean: what makes the map one of the class.
    logits = features.mean((1, 2)) @ kernel
    np.testing.assert_allclose(
        np.mean(got, axis=(1, 2)), logits[np.arange(3), labels], rtol=1e-4, atol=1e-5
    )


def test_effective_share():
    flat = np.full((4, 4), 3.0)
    one = np.zeros((4, 4))
    one[1, 2] = 0.5
    quarter = np.where(np.arange(16).reshape(4, 4) < 4, 2.0, -1.0)  # what is negative is silent
    uneven = np.zeros((4, 4))
    uneven[0, :2] = 0.75, 0.25
    maps = jnp.asarray(np.stack([flat, one, quarter, uneven, -flat]), jnp.float32)
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    want = [1, 1 / 16, 4 / 16, np.exp(entropy) / 16, np.nan]
    np.testing.assert_allclose(figure6.effective_share(maps), want, rtol=1e-5)


def test_differences_of_shares_are_paired_by_seed():
    shares = {
        ("baseline", 0): np.array([0.2, 0.4]),
        ("baseline", 1): np.array([0.5, np.nan]),
        ("block7", 0): np.array([0.4, 0.6]),
        ("block7", 1): np.array([0.8, 0.6]),
    }
    baseline, block7 = figure6.measure(shares)
    assert baseline["share"] == pytest.approx(0.4) and baseline["difference"] is None
    assert baseline["maps_without_positive_part"] == 1
    assert block7["difference"] == pytest.approx(0.2)
    assert block7["difference_interval"] == pytest.approx(0, abs=1e-9)


def test_what_dropping_costs_each_way_to_train():
    curves = {
        1: {
            "baseline": {
                0: {0.5: 60.0, 0.8: 80.0, 1.0: 90.0},
                1: {0.5: 50.0, 0.8: 60.0, 1.0: 90.0},
            },
            "block3": {0: {0.5: 88.0, 0.8: 90.0, 1.0: 92.0}, 1: {0.5: 80.0, 0.8: 84.0, 1.0: 92.0}},
        }
    }
    baseline, block3 = figure5.losses(curves)
    assert baseline["loss"] == pytest.approx((20 + 35) / 2) and baseline["difference"] is None
    assert block3["loss"] == pytest.approx((3 + 10) / 2)
    assert block3["difference"] == pytest.approx(-(17 + 25) / 2)
    assert block3["difference_interval"] == pytest.approx(12.7062 * 4, rel=1e-4)  # t(0.975, 1)
    assert block3["inference_block"] == 1 and block3["seeds"] == 2


def test_points_stand_beside_the_papers():
    curves = {3: {"baseline": {0: {0.8: 50.0}, 1: {0.8: 60.0}}, "block3": {}}}
    first, second = figure5.make_points(curves, [0.8])
    assert (first["top1"], first["top1_paper"]) == (55.0, 23.8)
    assert (second["top1"], second["top1_paper"], second["seeds"]) == (None, 62.5, 0)


def test_the_papers_points_are_at_its_own_blocks_and_keep_probs():
    points = figure5.paper_points()
    assert len(points) == 6 * 12
    assert points[-2] == {
        "panel": "inference block 7",
        "series": "trained: block7",
        "x": 0.98,
        "top1": 77.5,
    }
