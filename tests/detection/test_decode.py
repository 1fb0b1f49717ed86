"""Decoding and NMS agree with the literal greedy algorithm."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec

import eight_devices
import literal_boxes as literal
from detection import boxes as box_lib
from detection import decode as decode_lib
from detection.anchors import make_anchors

CANDIDATES, LIMIT = 300, 40  # three blocks
nms = jax.jit(functools.partial(decode_lib.nms, max_detections=LIMIT))


def padded(kept):
    return kept + [-1] * (LIMIT - len(kept))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    side=st.sampled_from([3, 8, 30, 200]),  # from duplicates to boxes that hardly touch
    classes=st.integers(1, 10),
    candidates=st.integers(0, CANDIDATES),
    threshold=st.sampled_from([0.0, 0.3, 0.5, 0.75]),
)
def test_nms_is_the_literal_one(seed, side, classes, candidates, threshold):
    random = np.random.default_rng(seed)
    boxes = literal.whole_boxes(random, CANDIDATES, side)
    labels = random.integers(0, classes, CANDIDATES)
    labels[random.permutation(CANDIDATES)[candidates:]] = -1
    expected = literal.nms(boxes, labels, LIMIT, threshold)
    np.testing.assert_array_equal(nms(boxes, labels, iou_threshold=threshold), padded(expected))


def test_a_chain_of_suppression():
    # Each box suppresses the next and not the one after it: as many rounds as it is long, and it
    # crosses the blocks' borders.
    start = 2.0 * np.arange(CANDIDATES, dtype=np.float32)
    boxes = np.stack([0 * start, start, 0 * start + 8, start + 8], axis=-1)
    kept = nms(boxes, np.zeros(CANDIDATES, np.int32))  # 6/10 and 4/12, around the default, 1/2
    np.testing.assert_array_equal(kept, np.arange(0, 2 * LIMIT, 2))


def test_a_suppressed_box_suppresses_none_and_classes_do_not_mix():
    boxes = np.zeros((CANDIDATES, 4), np.float32)
    boxes[:4] = [[0, 0, 8, 8], [0, 2, 8, 10], [0, 4, 8, 12], [0, 1, 8, 9]]
    labels = np.full(CANDIDATES, -1)
    labels[:4] = [0, 0, 0, 1]
    np.testing.assert_array_equal(nms(boxes, labels, iou_threshold=0.5), padded([0, 2, 3]))
    # An IoU at the threshold, 4/12, is not above it.
    kept = nms(boxes, labels, iou_threshold=np.float32(4) / np.float32(12))
    np.testing.assert_array_equal(kept, padded([0, 2, 3]))


def test_boxes_without_area_suppress_none():
    # As clipping leaves of boxes beyond the image; also in the last block, which is not full.
    labels = np.full(CANDIDATES, -1)
    labels[[0, 1, 298, 299]] = 0
    boxes = np.zeros((CANDIDATES, 4), np.float32)
    np.testing.assert_array_equal(nms(boxes, labels), padded([0, 1, 298, 299]))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([0.5, 3.0, 1e3]))
def test_top_pairs_are_those_of_a_stable_sort(seed, spread):
    # Rounded: a few different values only, or hardly any that are equal.
    logits = np.random.default_rng(seed).normal(0, spread, (50, 7)).round().astype(np.float32)
    top, anchors, classes = jax.jit(decode_lib.top_pairs, static_argnums=1)(logits, 30)
    order = np.argsort(-logits.ravel(), kind="stable")[:30]
    np.testing.assert_array_equal(top, logits.ravel()[order])
    np.testing.assert_array_equal(np.asarray(anchors) * 7 + classes, order)


def test_fewer_pairs_than_asked_for():
    top, anchors, classes = decode_lib.top_pairs(jnp.arange(6.0).reshape(3, 2), 5000)
    np.testing.assert_array_equal(top, np.arange(6.0)[::-1])
    np.testing.assert_array_equal(np.asarray(anchors) * 2 + classes, np.arange(6)[::-1])


ANCHORS = make_anchors(32, 64, min_level=3, max_level=4)
CLASSES = 4
boxes_of = jax.jit(lambda codes, anchors, size: box_lib.clip(box_lib.decode(codes, anchors), size))
limited = functools.partial(decode_lib.decode, max_candidates=200, max_detections=LIMIT)
jitted = jax.jit(limited)


def decode(outputs, sizes=(32, 64), min_score=0.0):
    """Of one compile."""
    return jitted(*outputs, ANCHORS, np.broadcast_to(sizes, (8, 2)), min_score=min_score)


@pytest.fixture(scope="module")
def outputs():
    random = np.random.default_rng(0)
    logits = random.normal(-2, 2, (8, len(ANCHORS), CLASSES)).astype(np.float32)
    codes = random.normal(0, 0.3, (8, len(ANCHORS), 4)).astype(np.float32)
    return logits, codes


@pytest.mark.parametrize("min_score", [0.0, 0.9])
def test_decoding_is_the_literal_one(outputs, min_score):
    logits, codes = outputs
    size = np.array([30, 61])
    found = decode(outputs, size, min_score)
    for image in range(3):
        order = np.argsort(-logits[image].ravel(), kind="stable")[:200]
        anchors, labels = order // CLASSES, order % CLASSES
        boxes = boxes_of(codes[image][anchors], ANCHORS[anchors], size)
        scores = 1 / (1 + np.exp(-logits[image][anchors, labels]))
        labels[scores < min_score] = -1
        kept = literal.nms(np.asarray(boxes), labels, LIMIT, 0.5)
        count = len(kept)
        np.testing.assert_array_equal(found.labels[image][:count], labels[kept])
        np.testing.assert_array_equal(found.anchors[image][:count], anchors[kept])
        np.testing.assert_allclose(found.scores[image][:count], scores[kept], rtol=1e-5)
        np.testing.assert_allclose(found.boxes[image][:count], boxes[np.array(kept)], atol=1e-4)
        assert (found.labels[image][count:] == -1).all() and not found.boxes[image][count:].any()
        assert not found.anchors[image][count:].any()
    assert (np.asarray(found.labels) == -1).any() == (min_score > 0)
    assert found.labels.shape == (8, LIMIT) and found.labels.dtype == jnp.int32


def test_each_image_has_its_own_size(outputs):
    sizes = np.array([[20 + image, 40 + image] for image in range(8)])
    boxes = decode(outputs, sizes).boxes
    assert (boxes >= 0).all()
    np.testing.assert_array_equal(boxes.max(axis=1)[:, 2:], sizes)


def test_a_score_at_the_least_one_is_not_below_it(outputs):
    even = np.zeros_like(outputs[0]), outputs[1]  # all scores are 1/2
    assert (decode(even, min_score=0.5).labels[:, 0] >= 0).all()
    assert (decode(even, min_score=np.nextafter(np.float32(0.5), 1)).labels == -1).all()


def test_defaults():
    # 5,001 squares apart from one another, of which 5,000 are candidates.
    left = 2.0 * np.arange(5001, dtype=np.float32)
    anchors = np.stack([0 * left, left, 0 * left + 1, left + 1], axis=-1)
    outputs = np.zeros((1, 5001, 1), np.float32), np.zeros((1, 5001, 4), np.float32)
    found = decode_lib.decode(*outputs, anchors, (1, 20_000), max_detections=5001)
    assert (found.labels >= 0).sum() == 5000
    found = decode_lib.decode(*outputs, anchors, (1, 20_000))
    np.testing.assert_array_equal(found.boxes[0], anchors[:100])


def test_a_diverged_model_detects_nothing(outputs):
    logits, codes = outputs
    logits = np.concatenate([np.full_like(logits[:1], np.nan), logits[1:]])
    codes = codes.copy()
    codes[1, :, 0] = np.nan  # one coordinate is enough
    found = decode((logits, codes))
    assert (found.labels[:2] == -1).all() and not found.scores[:2].any()
    assert (found.labels[2:] >= 0).all() and all(np.isfinite(part).all() for part in found)


def test_eight_devices_find_the_same(outputs):
    on_one = decode(outputs)
    by_batch = PartitionSpec("data")
    function = jax.shard_map(
        lambda logits, codes: limited(logits, codes, ANCHORS, (32, 64)),
        mesh=eight_devices.mesh(),
        in_specs=by_batch,
        out_specs=by_batch,
        check_vma=False,
    )
    for one, eight in zip(on_one, eight_devices.call(function, *outputs), strict=True):
        np.testing.assert_array_equal(one, eight)
