"""Matching agrees with the authors' rule, followed literally."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import literal_boxes as literal
from detection import boxes as box_lib
from detection import matching

MAX_BOXES, ANCHORS = 6, 60
match = jax.jit(matching.match)
make_targets = jax.jit(matching.make_targets)


def literal_match(boxes, labels, anchors, threshold):
    matches = np.full(len(anchors), -1)
    objects = [index for index, label in enumerate(labels) if label >= 0]
    overlaps = {
        (index, anchor): literal.iou(boxes[index], anchors[anchor])
        for index in objects
        for anchor in range(len(anchors))
    }
    for anchor in range(len(anchors)):
        best = max(objects, key=lambda index: overlaps[index, anchor], default=None)
        if best is not None and overlaps[best, anchor] >= threshold:
            matches[anchor] = best
    forced = set()
    for index in objects:
        anchor = max(range(len(anchors)), key=lambda anchor: overlaps[index, anchor])
        if overlaps[index, anchor] > 0 and anchor not in forced:
            matches[anchor] = index
            forced.add(anchor)
    return matches


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    side=st.integers(2, 30),  # small ones make ties, and objects that share their best anchor
    objects=st.integers(0, MAX_BOXES),
    threshold=st.sampled_from([0.25, 0.5, 0.75]),
)
def test_matches_are_the_literal_ones(seed, side, objects, threshold):
    random = np.random.default_rng(seed)
    anchors = literal.whole_boxes(random, ANCHORS, side)
    boxes = literal.whole_boxes(random, MAX_BOXES, side)
    labels = np.where(np.arange(MAX_BOXES) < objects, random.integers(0, 3, MAX_BOXES), -1)
    random.shuffle(labels)  # padding may be anywhere
    boxes[labels < 0] = 0
    matches = match(boxes, labels, anchors, threshold)
    np.testing.assert_array_equal(matches, literal_match(boxes, labels, anchors, threshold))


ROW = np.array([[0, 10 * x, 10, 10 * x + 10] for x in range(4)], np.float32)  # anchors in a row


def test_matches_by_hand():
    boxes = np.array(
        [
            [0, 0, 10, 5],  # IoU 0.5 with the first anchor: at the threshold
            [0, 13, 10, 23],  # 7/13 with the second, 3/17 with the third
            [0, 20, 1, 21],  # 0.01 with the third: forced
            [0, 0, 0, 0],
        ],
        np.float32,
    )
    labels = np.array([0, 1, 2, -1])
    np.testing.assert_array_equal(match(boxes, labels, ROW, 0.5), [0, 1, 2, -1])
    np.testing.assert_array_equal(match(boxes, labels, ROW, 0.6), [0, 1, 2, -1])  # all forced


def test_the_threshold_is_one_half():
    anchors = np.array([[0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 4]], np.float32)
    boxes = np.array([[0, 0, 10, 10]], np.float32)  # IoU 1, 0.5 and 0.4
    np.testing.assert_array_equal(match(boxes, np.zeros(1, np.int32), anchors), [0, 0, -1])


def test_the_first_of_two_objects_gets_an_anchor_that_is_best_for_both():
    boxes = np.array([[0, 0, 4, 4], [0, 0, 9, 9], [0, 0, 0, 0], [0, 0, 0, 0]], np.float32)
    labels = np.array([1, 0, -1, -1])
    np.testing.assert_array_equal(match(boxes, labels, ROW, 0.5), [0, -1, -1, -1])


def test_an_object_beyond_all_anchors_forces_none():
    boxes = np.array([[90, 90, 99, 99]] * 4, np.float32)
    assert (match(boxes, np.zeros(4, np.int32), ROW, 0.5) == -1).all()


def test_targets_of_a_batch():
    random = np.random.default_rng(0)
    anchors = literal.whole_boxes(random, ANCHORS, 20)
    boxes = np.stack([literal.whole_boxes(random, MAX_BOXES, 20) for _ in range(3)])
    labels = random.integers(0, 5, (3, MAX_BOXES)).astype(np.int32)
    labels[1], boxes[1] = -1, 0  # an image without objects
    labels[2, 2:], boxes[2, 2:] = -1, 0
    targets = make_targets(boxes, labels, anchors)
    assert (targets.labels.dtype, targets.codes.dtype) == (jnp.int32, jnp.float32)
    for image in range(3):
        matches = literal_match(boxes[image], labels[image], anchors, 0.5)
        expected = np.where(matches >= 0, labels[image][matches], -1)
        np.testing.assert_array_equal(targets.labels[image], expected)
        positive = matches >= 0
        assert not np.asarray(targets.codes[image])[~positive].any()
        decoded = box_lib.decode(targets.codes[image], anchors)[positive]
        np.testing.assert_allclose(decoded, boxes[image][matches][positive], atol=1e-4)
    assert (targets.labels[1] == -1).all() and (targets.labels[0] >= 0).any()
