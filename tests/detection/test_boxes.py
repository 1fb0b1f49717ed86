"""Overlaps and codes of boxes agree with NumPy's, one box at a time."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import literal_boxes as literal
from detection import boxes as box_lib


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.sampled_from([1, 64]))
def test_iou_is_the_literal_one(seed, side, parts):
    random = np.random.default_rng(seed)
    # In parts of a pixel, too.
    boxes = literal.whole_boxes(random, 7, side) / np.float32(parts)
    others = literal.whole_boxes(random, 5, side) / np.float32(parts)
    expected = [[literal.iou(box, other) for other in others] for box in boxes]
    np.testing.assert_array_equal(jax.jit(box_lib.iou)(boxes, others), expected)


def test_iou_by_hand():
    box = jnp.array([[0.0, 0.0, 2.0, 2.0]])
    others = jnp.array(
        [[0.0, 0.0, 2.0, 2.0], [0.0, 1.0, 2.0, 3.0], [1.0, 1.0, 3.0, 3.0], [2.0, 0.0, 4.0, 2.0]]
    )
    np.testing.assert_allclose(box_lib.iou(box, others), [[1.0, 1 / 3, 1 / 7, 0.0]], rtol=1e-6)


def test_boxes_without_area_overlap_nothing():
    boxes = jnp.array([[0.0, 0.0, 0.0, 0.0], [3.0, 3.0, 1.0, 1.0], [0.0, 0.0, 4.0, 4.0]])
    np.testing.assert_array_equal(box_lib.area(boxes), [0.0, 0.0, 16.0])
    np.testing.assert_array_equal(box_lib.iou(boxes, boxes), np.diag([0.0, 0.0, 1.0]))


def test_areas_by_hand():
    boxes = jnp.array(
        [
            [[1.0, 2.0, 4.0, 9.0], [0.0, 0.0, 0.5, 0.25]],
            [[4.0, 2.0, 1.0, 9.0], [1.0, 9.0, 4.0, 2.0]],  # one edge is turned around
        ]
    )
    np.testing.assert_array_equal(box_lib.area(boxes), [[21.0, 0.125], [0.0, 0.0]])


def test_boxes_are_cut_at_the_edges():
    boxes = jnp.array([[-3.0, 2.0, 9.0, 30.0], [5.0, 5.0, 6.0, 7.0]])
    np.testing.assert_array_equal(
        box_lib.clip(boxes, (8, 20)), [[0.0, 2.0, 8.0, 20.0], [5.0, 5.0, 6.0, 7.0]]
    )
    # Each image of a batch has its own size.
    sizes = jnp.array([[8, 20], [5, 6]])
    cut = box_lib.clip(jnp.stack([boxes, boxes]), sizes)
    np.testing.assert_array_equal(cut[1, 0], [0.0, 2.0, 5.0, 6.0])
    np.testing.assert_array_equal(cut[1, 1], [5.0, 5.0, 5.0, 6.0])


def test_codes_by_hand():
    # Centres 2 and 3 apart, sides twice and half.
    anchor = jnp.array([10.0, 20.0, 20.0, 30.0])
    box = jnp.array([7.0, 25.5, 27.0, 30.5])
    expected = [(17 - 15) / 10, (28 - 25) / 10, np.log(2), np.log(0.5)]
    np.testing.assert_allclose(box_lib.encode(box, anchor), expected, rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(4,), (20, 4), (4, 5, 4)]))
def test_decoding_undoes_encoding(seed, shape):
    random = np.random.default_rng(seed)
    count = math.prod(shape[:-1])
    boxes, anchors = (literal.whole_boxes(random, count, 600).reshape(shape) for _ in range(2))
    codes = jax.jit(box_lib.encode)(boxes, anchors)
    np.testing.assert_allclose(jax.jit(box_lib.decode)(codes, anchors), boxes, atol=0.05)


@pytest.mark.parametrize("function", [box_lib.encode, box_lib.decode])
def test_padding_has_finite_codes(function):
    # Boxes of padding are encoded too, and then masked.
    zeros, anchors = jnp.zeros((1, 4)), jnp.array([[0.0, 0.0, 4.0, 4.0]])
    assert np.isfinite(function(zeros, anchors)).all()
    assert np.isfinite(function(anchors, zeros)).all()
