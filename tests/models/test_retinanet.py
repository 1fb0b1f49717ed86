"""RetinaNet: size, outputs in the anchors' order, initial values, drop sites."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from detection.anchors import make_anchors
from models.drop import Drop
from models.resnet import ResNet
from models.retinanet import RetinaNet

DROP = Drop("dropblock", {"group3": 0.25, "group4": 1.0}, block_size=3)
SMALL = {
    "stem": "small",
    "in_channels": 1,
    "width_multiplier": 1 / 16,
    "min_level": 2,
    "max_level": 4,
    "fpn_channels": 8,
    "head_convs": 1,
    "head_channels": 8,
}


def make(depth=18, classes=3, stem="imagenet", stem_stride=1, width_multiplier=1.0, **arguments):
    options = {"stem": stem, "stem_stride": stem_stride, "width_multiplier": width_multiplier}
    backbone = functools.partial(ResNet, depth, **options)
    return RetinaNet(backbone, classes, rngs=nnx.Rngs(params=jax.random.key(0)), **arguments)


def shapes(model):
    return jax.tree.leaves(nnx.state(nnx.eval_shape(model), nnx.Param))


def trace(size, **arguments):
    """Shapes of a network's output at full size, without computing it."""
    x = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    return jax.eval_shape(lambda x: make(**arguments)(x, train=False), x)


def test_parameters_of_retinanet_50():
    # The ResNet-50's published count without its head, and the rest by formula.
    backbone = 25_557_032 - (2048 + 1) * 1000
    fpn = sum(c * 256 + 256 for c in (512, 1024, 2048))  # lateral
    fpn += 5 * (9 * 256 * 256 + 256)  # three smoothing, two strided
    fpn += 5 * 2 * 256  # BN
    heads = 2 * 4 * (9 * 256 * 256 + 256 + 5 * 2 * 256)
    heads += (9 * 256 + 1) * 9 * 80 + (9 * 256 + 1) * 9 * 4
    count = sum(x.size for x in shapes(lambda: make(50, 80)))
    assert count == backbone + fpn + heads == 33_862_964


def test_outputs_at_640():
    out = trace(640, depth=18, classes=80)
    anchors = len(make_anchors(640, 640))
    assert out["class_logits"].shape == (2, anchors, 80)
    assert out["box_codes"].shape == (2, anchors, 4)
    sides = {f"p{level}": (2, 640 // 2**level, 640 // 2**level, 256) for level in range(3, 8)}
    assert {name: out[name].shape for name in sides} == sides
    assert out["group4"].shape == (2, 20, 20, 512)
    assert "logits" not in out


@pytest.mark.parametrize(
    ("arguments", "levels"),
    [
        ({"stem": "small", "min_level": 0, "max_level": 4}, range(5)),
        ({"stem": "small", "stem_stride": 2, "min_level": 1, "max_level": 5}, range(1, 6)),
        ({"min_level": 2, "max_level": 6}, range(2, 7)),
    ],
)
def test_levels_are_named_by_their_strides(arguments, levels):
    out = trace(
        64, width_multiplier=1 / 16, fpn_channels=8, head_channels=8, head_convs=0, **arguments
    )
    for level in levels:
        assert out[f"p{level}"].shape == (2, 64 >> level, 64 >> level, 8)
    anchors = make_anchors(64, 64, min_level=levels[0], max_level=levels[-1])
    assert out["box_codes"].shape == (2, len(anchors), 4)


@pytest.fixture(scope="module")
def called():
    """Output of a small RetinaNet, and its box head's maps again, of one compile."""
    places = {"group4.block2.conv2": 1.0, "fpn": 0.5, "head.class": 1.0}
    drop = Drop("spatial_dropout", places)
    model = nnx.eval_shape(lambda: make(drop=drop, **SMALL))
    graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    # Random by NumPy, which need not be compiled.
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda x: random.normal(0, 0.2, x.shape).astype(np.float32), params)
    stats = jax.tree.map(lambda x: np.ones(x.shape, np.float32), stats)

    @jax.jit
    def call(params, stats, x, key):
        model = nnx.merge(graphdef, params, stats)
        out = model(x, train=False, keep_prob=0.5, rng=key)
        maps, _ = model.box_head({name: out[name] for name in ("p2", "p3", "p4")}, False)
        return out, maps

    # Eight examples of 8 channels, three quarters of which fpn keeps: all have a chance of 1e-8.
    x = random.standard_normal((8, 32, 48, 1)).astype(np.float32)
    return call(params, stats, x, jax.random.key(0))


def test_outputs_are_in_the_anchors_order(called):
    out, maps = called
    anchors = make_anchors(32, 48, min_level=2, max_level=4)
    assert out["box_codes"].shape == (8, len(anchors), 4)
    for index in range(0, len(anchors), 7):
        # Where the anchor lies, its cell's output is.
        ymin, xmin, ymax, xmax = anchors[index]
        level = 2 + sum(index >= bound for bound in (8 * 12 * 9, (8 * 12 + 4 * 6) * 9))
        row, column = (ymin + ymax) / 2 // 2**level, (xmin + xmax) / 2 // 2**level
        cell = maps[f"p{level}"][0, int(row), int(column)]
        expected = cell.reshape(9, 4)[index % 9]
        np.testing.assert_allclose(out["box_codes"][0, index], expected, rtol=1e-3, atol=1e-4)


def test_classes_start_at_the_prior():
    bias = jax.jit(lambda: make(**SMALL).class_head.output.bias[...])()
    np.testing.assert_allclose(jax.nn.sigmoid(bias), 0.01, rtol=1e-5)


def test_sites_of_backbone_pyramid_and_heads(called):
    kept = called[0]["kept"]
    levels = ("p2", "p3", "p4")
    assert set(kept) == {
        "group4.block2.conv2",
        *(f"fpn.{level}" for level in levels),
        *(f"head.class.conv1.{level}" for level in levels),
    }
    assert all(fraction.shape == (8,) and fraction.min() < 1 for fraction in kept.values())


def test_a_key_is_needed_and_places_must_match():
    with pytest.raises(ValueError, match="rng must be a JAX key"):
        nnx.eval_shape(lambda: make(drop=DROP, **SMALL)(jnp.ones((1, 32, 32, 1)), train=True))
    with pytest.raises(ValueError, match=r"group9.*group1.*fpn.*head"):
        nnx.eval_shape(lambda: make(drop=Drop("dropblock", {"group9": 1.0}), **SMALL))


def test_batch_norm_has_the_detectors_constants():
    model = nnx.eval_shape(lambda: make(**SMALL))
    norms = [module for _, module in nnx.iter_modules(model) if isinstance(module, nnx.BatchNorm)]
    assert {(norm.momentum, norm.epsilon) for norm in norms} == {(0.997, 1e-4)}


def test_bfloat16_gives_outputs_in_float32():
    def forward(x):
        return make(dtype=jnp.bfloat16, **SMALL)(x, train=False)

    out = jax.eval_shape(forward, jax.ShapeDtypeStruct((1, 32, 32, 1), jnp.float32))
    assert out["class_logits"].dtype == out["box_codes"].dtype == jnp.float32
    assert out["p2"].dtype == out["group4"].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 0}, "num_classes.*0 and 9"),
        ({"anchors_per_cell": 0}, "anchors_per_cell.*3 and 0"),
        ({"stem": "small", "stem_stride": 3}, "strides of a backbone must be powers of two, got 3"),
        ({"min_level": 1}, "min_level.*2, 3, 4, 5.*1 and 7"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        nnx.eval_shape(lambda: make(**arguments))


def test_a_size_that_the_strides_do_not_divide():
    with pytest.raises(ValueError, match="multiples of 16.*p4.*32 and 40"):
        nnx.eval_shape(lambda: make(**SMALL)(jnp.ones((1, 32, 40, 1)), train=False))
