"""What is put in the place of parts that ONNX or its converter has not."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from detection import boxes as box_lib
from detection.decode import decode
from exporting.plain import plain

SIZE = (60.0, 50.0)


@pytest.mark.parametrize("case", ["all", "few candidates", "min_score", "fewer than asked for"])
def test_nms_keeps_what_decode_keeps(case):
    onnx = pytest.importorskip("onnx", reason="docs/export.md installs it")
    runtime = pytest.importorskip("onnxruntime", reason="docs/export.md installs it")
    from exporting import nms

    anchors, classes = (5, 3) if case == "fewer than asked for" else (40, 3)
    fields = types.SimpleNamespace(
        max_candidates=30 if case == "few candidates" else 5000,
        max_detections=(11, 20),
        nms_iou=0.3,
        min_score=0.6 if case == "min_score" else 0.0,
    )
    random = np.random.default_rng(0)
    # Rounded, so that some are equal; and some so high that their scores are.
    logits = random.normal(scale=10, size=(2, anchors, classes)).round().astype(np.float32)
    corners = random.uniform(0, 40, (anchors, 2))
    places = np.concatenate([corners, corners + random.uniform(5, 20, (anchors, 2))], 1)
    places = places.astype(np.float32)
    codes = random.normal(scale=0.1, size=(2, anchors, 4)).astype(np.float32)
    codes[1, 0] = np.nan
    expected = decode(
        logits,
        codes,
        places,
        SIZE,
        max_candidates=fields.max_candidates,
        max_detections=20,
        iou_threshold=fields.nms_iou,
        min_score=fields.min_score,
    )
    boxes = box_lib.clip(box_lib.decode(codes, jnp.asarray(places)[None]), [SIZE, SIZE])

    given = {"class_logits": logits, "compared_boxes": boxes, "original_boxes": 2 * boxes}
    values = [
        onnx.helper.make_tensor_value_info(name, 1, ["batch", *x.shape[1:]])
        for name, x in given.items()
    ]
    inputs = [onnx.helper.make_tensor_value_info(f"{x.name}_in", 1, None) for x in values]
    for one, other in zip(inputs, values, strict=True):
        one.type.CopyFrom(other.type)
    nodes = [
        onnx.helper.make_node("Identity", [one.name], [other.name])
        for one, other in zip(inputs, values, strict=True)
    ]
    graph = onnx.helper.make_graph(nodes, "network", inputs, values)
    opset = [onnx.helper.make_opsetid("", 23)]
    network = onnx.helper.make_model(graph, opset_imports=opset, ir_version=10)
    model = nms.append(network, fields, anchors=anchors, classes=classes)
    onnx.checker.check_model(model, full_check=True)
    session = runtime.InferenceSession(model.SerializeToString())
    feed = {f"{name}_in": np.asarray(x) for name, x in given.items()}
    found = session.run(["boxes", "scores", "labels"], feed)

    np.testing.assert_array_equal(found[2], expected.labels)
    np.testing.assert_allclose(found[0], 2 * expected.boxes, rtol=1e-6)
    np.testing.assert_allclose(found[1], expected.scores, atol=1e-6)
    assert (np.asarray(expected.labels) >= 0).sum() > 10


def test_plain_functions_have_neither_padding_nor_windows():
    @jax.jit
    def function(x):
        x = jax.nn.relu(jnp.pad(x, ((0, 0), (1, 2), (0, 0), (0, 1)), constant_values=0.5))
        window = {"window_dimensions": (1, 3, 2, 1), "window_strides": (1, 2, 1, 1)}
        most = lax.reduce_window(x, -jnp.inf, lax.max, padding="SAME", **window)
        return most, lax.reduce_window(x, 0.0, lax.add, padding="VALID", **window)

    x = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype(np.float32)
    traced = jax.make_jaxpr(function)(x)
    without = jax.make_jaxpr(plain(traced))(x)
    for name in ("pad[", "reduce_window"):
        assert name in str(traced)
        assert name not in str(without)
    for found, expected in zip(plain(traced)(x), function(x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_what_plain_does_not_know_is_refused():
    for padding in ((-1, 0, 0), (0, 0, 1)):
        traced = jax.make_jaxpr(lambda x, p=padding: lax.pad(x, 0.0, [p]))(np.ones(4, np.float32))
        with pytest.raises(NotImplementedError):
            plain(traced)(np.ones(4, np.float32))
