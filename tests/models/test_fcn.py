"""FCN: sizes, parameters, drop sites, and where its logits lie."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.drop import Drop
from models.fcn import FCN
from models.fpn import upsample
from models.resnet import ResNet

SMALL = {
    "stem": "small",
    "in_channels": 1,
    "width_multiplier": 1 / 16,
    "min_level": 1,
    "max_level": 3,
    "fpn_channels": 8,
    "head_convs": 2,
    "head_channels": 8,
}


def make(depth=10, classes=3, stem="imagenet", stem_stride=1, width_multiplier=1.0, **arguments):
    options = {"stem": stem, "stem_stride": stem_stride, "width_multiplier": width_multiplier}
    backbone = functools.partial(ResNet, depth, **options)
    return FCN(backbone, classes, rngs=nnx.Rngs(params=jax.random.key(0)), **arguments)


def trace(size, depth=10, channels=3, **arguments):
    """Shapes of a network's output, without computing it."""
    x = jax.ShapeDtypeStruct((2, size, size, channels), jnp.float32)
    return jax.eval_shape(
        lambda x: make(depth, in_channels=channels, **arguments)(x, train=False), x
    )


def test_maps_and_sites_at_513():
    def call(x, key):
        model = make(10, 21, drop=Drop("dropblock", {"head": 1.0}, block_size=16))
        return model(x, train=True, keep_prob=0.2, rng=key)

    out = jax.eval_shape(
        call, jax.ShapeDtypeStruct((2, 513, 513, 3), jnp.float32), jax.random.key(0)
    )
    assert {name: report.map_shape.shape for name, report in out["sites"].items()} == {
        f"head.conv{number}.p{level}": (side, side)
        for number in (1, 2, 3)
        for level, side in ((3, 65), (4, 33), (5, 17))
    }
    assert out["logits"].shape == (2, 65, 65, 21) and out["logits"].dtype == jnp.float32
    assert [out[name].shape[1:3] for name in ("stem", "group1", "p3", "p4", "p5")] == [
        (129, 129),
        (129, 129),
        (65, 65),
        (33, 33),
        (17, 17),
    ]
    assert out["p3"].shape[3] == 256


def test_parameters_and_sites_of_the_papers_network():
    backbone = 44_549_160 - 2049 * 1000  # ResNet-101's published count without its head
    fpn = sum(c * 256 + 256 for c in (512, 1024, 2048))  # lateral
    fpn += 3 * (9 * 256 * 256 + 256) + 3 * 2 * 256  # smoothing, BN
    head = 4 * (9 * 256 * 256 + 256)  # shared by the levels
    head += 3 * 3 * 2 * 256  # BN of three convolutions on three levels
    head += 2 * 256 + (9 * 256 + 1) * 21  # of the sum, and to the classes
    drop = Drop("dropblock", {"group3": 0.25}, block_size=16)
    model = nnx.eval_shape(lambda: make(101, 21, drop=drop))
    count = sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert count == backbone + fpn + head
    blocks = model.backbone.groups["group3"].values()
    assert sum(bool(s) for b in blocks for s in (b.skip_site, *b.conv_sites)) == 23 * 4
    assert not any(site for sites in model.head.sites for site in sites)


@pytest.mark.parametrize(
    ("size", "arguments", "cells"),
    [
        (33, {"stem": "small", "min_level": 0, "max_level": 3}, 33),
        (40, {"stem": "small", "min_level": 1, "max_level": 3}, 20),
        (50, {"min_level": 3, "max_level": 5}, 7),
    ],
)
def test_the_finest_level_gives_the_stride(size, arguments, cells):
    out = trace(size, width_multiplier=1 / 16, fpn_channels=8, head_channels=8, **arguments)
    assert out["logits"].shape == (2, cells, cells, 3)
    assert out[f"p{arguments['min_level']}"].shape == (2, cells, cells, 8)
    assert f"p{arguments['min_level'] - 1}" not in out


@pytest.fixture(scope="module")
def called():
    """A small FCN with random parameters, its input and its output."""
    drop = Drop("spatial_dropout", {"head": 1.0})
    model = nnx.eval_shape(lambda: make(drop=drop, **SMALL))
    graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda x: random.normal(0, 0.2, x.shape).astype(np.float32), params)
    stats = jax.tree.map(lambda x: np.ones(x.shape, np.float32), stats)

    @jax.jit
    def call(params, stats, x, key):
        model = nnx.merge(graphdef, params, stats)
        dropped = model(x, train=False, keep_prob=0.5, rng=key)
        out = model(x, train=False)
        outputs, _ = model.head({name: out[name] for name in ("p1", "p2", "p3")}, False)
        return out, dropped, outputs

    # Four examples of 8 channels: that a site keeps all or none has a chance of 1e-9.
    x = random.standard_normal((4, 33, 41, 1)).astype(np.float32)
    return nnx.merge(graphdef, params, stats), call(params, stats, x, jax.random.key(0))


def test_levels_are_summed_at_the_finest(called):
    model, (out, _, outputs) = called
    summed = outputs["p1"]
    assert summed.shape == (4, 17, 21, 8) and outputs["p3"].shape == (4, 5, 6, 8)
    for name in ("p2", "p3"):
        summed = summed + upsample(outputs[name], (17, 21), "bilinear")
    expected = model.output(nnx.relu(model.sum_norm(summed, use_running_average=True)))
    np.testing.assert_allclose(out["logits"], expected, rtol=1e-3, atol=1e-4)


def test_sites_of_the_head(called):
    _, (out, dropped, _) = called
    assert not out["kept"]
    assert set(dropped["kept"]) == {
        f"head.conv{number}.p{level}" for level in (1, 2, 3) for number in (1, 2)
    }
    assert all(0 < kept.mean() < 1 for kept in dropped["kept"].values())
    assert (dropped["logits"] != out["logits"]).any()


def test_a_key_is_needed_and_places_must_match():
    drop = Drop("dropblock", {"head": 1.0}, block_size=3)
    with pytest.raises(ValueError, match="rng must be a JAX key"):
        nnx.eval_shape(lambda: make(drop=drop, **SMALL)(jnp.ones((1, 33, 33, 1)), train=True))
    with pytest.raises(ValueError, match=r"group9.*group1.*fpn.*head"):
        nnx.eval_shape(lambda: make(drop=Drop("dropblock", {"group9": 1.0}), **SMALL))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 0}, "num_classes.*0"),
        ({"stem": "small", "stem_stride": 3}, "strides of a backbone must be powers of two, got 3"),
        ({"min_level": 1}, "min_level.*2, 3, 4, 5.*1 and 5"),
        ({"max_level": 4}, "max_level at least 5.*3 and 4"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        nnx.eval_shape(lambda: make(**arguments))
