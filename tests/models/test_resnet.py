"""The ResNets: sizes, constants and drop sites of the authors' code."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.drop import Drop
from models.layers import ConvNorm, Layers, Norm
from models.resnet import DEPTHS, NORM, ResNet

NO_DROP = Drop()
DROP = Drop("dropblock", {"group3": 0.25, "group4": 1.0}, block_size=3)


def layers():
    return Layers(NORM, jnp.float32, "cpu", nnx.Rngs(params=0))


def make(depth=18, classes=10, seed=0, **arguments):
    return ResNet(depth, classes, rngs=nnx.Rngs(params=jax.random.key(seed)), **arguments)


def small(**arguments):
    defaults = {"depth": 10, "stem": "small", "width_multiplier": 1 / 16, "in_channels": 1}
    defaults["platform"] = "cpu"
    return make(**(defaults | arguments))


@functools.cache
def weights():
    return jax.jit(lambda: nnx.state(small(), (nnx.Param, nnx.BatchStat)))()


@functools.partial(jax.jit, static_argnames=("train", "drop", "dtype"))
def forward(weights, x, rng, keep_prob, train, drop, dtype):
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: small(drop=drop, dtype=dtype)))
    return nnx.merge(graphdef, weights)(x, train=train, keep_prob=keep_prob, rng=rng)


def run(x, rng=None, *, train, keep_prob=1.0, drop=NO_DROP, dtype=jnp.float32):
    """Calls a small ResNet-10; the weights are the same for all."""
    return forward(weights(), x, rng, keep_prob, train, drop, dtype)


def shapes(out):
    return {name: x.shape for name, x in out.items() if name not in ("kept", "sites")}


def trace(size, channels=3, batch=2, train=False, **arguments):
    """Shapes of a network's output at full size, without computing it."""

    def forward(x, key):
        model = make(in_channels=channels, **arguments)
        return model(x, train=train, keep_prob=0.9, rng=key)

    x = jax.ShapeDtypeStruct((batch, size, size, channels), jnp.float32)
    return jax.eval_shape(forward, x, jax.random.key(0))


def parameters(module):
    return sum(x.size for x in jax.tree.leaves(nnx.state(module, nnx.Param)))


@pytest.mark.parametrize(
    ("depth", "count"),
    [
        (10, 5_418_792),
        (18, 11_689_512),
        (34, 21_797_672),
        (50, 25_557_032),
        pytest.param(101, 44_549_160, marks=pytest.mark.slow),
        pytest.param(152, 60_192_808, marks=pytest.mark.slow),
    ],
)
def test_parameters(depth, count):
    assert parameters(nnx.eval_shape(lambda: make(depth, 1000))) == count


def test_parameters_of_the_deepest_by_their_blocks():
    # Each has more of the blocks that ResNet-50 ends its groups with.
    model = nnx.eval_shape(lambda: make(50, 1000))
    last = [parameters(group["block3"]) for group in model.groups.values()]
    for depth, count in ((101, 44_549_160), (152, 60_192_808)):
        (blocks, bottleneck), (fewer, _) = DEPTHS[depth], DEPTHS[50]
        more = [(a - b) * size for a, b, size in zip(blocks, fewer, last, strict=True)]
        assert bottleneck and parameters(model) + sum(more) == count


def test_features_of_resnet50_at_224():
    out = trace(224, depth=50, classes=1000)
    assert shapes(out) == {
        "stem": (2, 56, 56, 64),
        "group1": (2, 56, 56, 256),
        "group2": (2, 28, 28, 512),
        "group3": (2, 14, 14, 1024),
        "group4": (2, 7, 7, 2048),
        "logits": (2, 1000),
    }


def test_features_of_the_small_form():
    out = trace(28, channels=1, stem="small", width_multiplier=0.25)
    assert shapes(out) == {
        "stem": (2, 28, 28, 16),
        "group1": (2, 28, 28, 16),
        "group2": (2, 14, 14, 32),
        "group3": (2, 7, 7, 64),
        "group4": (2, 4, 4, 128),
        "logits": (2, 10),
    }
    assert trace(64, stem="small", stem_stride=2)["group4"].shape == (2, 4, 4, 512)


def test_sites_of_resnet50_are_36_and_each_reports_each_example():
    out = trace(224, depth=50, train=True, drop=DROP)
    assert len(out["kept"]) == (6 + 3) * 4
    assert {"group3.block1.conv1", "group4.block3.skip"} <= set(out["kept"])
    assert all(kept.shape == (2,) and kept.dtype == jnp.float32 for kept in out["kept"].values())
    assert out["kept"].keys() == out["sites"].keys()


def test_sites_see_the_map_before_the_stride():
    # The stride sits on the 3x3 (v1.5): conv1's site in the first block of group 4 sees 14x14, on
    # which block 7 keeps .9071, where 7x7 keeps .9 (docs/paper.md section 1.6).
    @jax.jit  # of which only the expectations, functions of the shapes, are ever computed
    def expectations(x, key):
        model = make(50, 10, width_multiplier=1 / 64, drop=Drop("dropblock", {"group4": 1.0}))
        return model(x, train=False, keep_prob=0.9, rng=key)["sites"]

    out = expectations(jnp.ones((1, 224, 224, 3)), jax.random.key(0))
    expected = {name: float(report.expected) for name, report in out.items()}
    assert expected["group4.block1.conv1"] == pytest.approx(0.9071, abs=5e-5)
    assert expected["group4.block1.conv2"] == pytest.approx(0.9, abs=1e-6)
    assert expected["group4.block1.skip"] == pytest.approx(0.9, abs=1e-6)


def test_places_have_their_factors(key):
    out = run(jnp.ones((2, 28, 28, 1)), key, train=True, keep_prob=0.6, drop=DROP)
    for site, report in out["sites"].items():
        # Block 3 on 7x7 or 4x4 keeps a little more than asked: overlaps.
        factor = 0.25 if site.startswith("group3") else 1.0
        assert 0 <= float(report.expected) - (1 - factor * 0.4) < 0.08, site


def test_initialisers():
    layer = ConvNorm(64, 128, 3, zero_scale=True, layers=layers())
    kernel = np.asarray(layer.conv.kernel[...])
    # Scale 1, fan-in, truncated at 2 sigma and rescaled to keep the variance.
    sigma = (9 * 64) ** -0.5
    assert kernel.std() == pytest.approx(sigma, rel=0.01)
    assert np.abs(kernel).max() == pytest.approx(2 / 0.87962566 * sigma, rel=0.01)
    assert layer.conv.bias is None
    assert (layer.norm.momentum, layer.norm.epsilon) == (0.9, 1e-5)
    assert not np.asarray(layer.norm.scale[...]).any()

    head = small(classes=1000, width_multiplier=1 / 4).head
    assert np.asarray(head.kernel[...]).std() == pytest.approx(0.01, rel=0.01)
    assert not np.asarray(head.bias[...]).any()


def test_a_block_starts_as_the_identity():
    out = run(jax.random.normal(jax.random.key(1), (2, 28, 28, 1)), train=False)
    # Group 1 projects nothing, and its BN scales are zero at the end of each branch.
    np.testing.assert_array_equal(out["group1"], out["stem"])


@pytest.mark.parametrize(("size", "stride"), [(7, 2), (3, 2), (1, 2), (3, 1)])
@pytest.mark.parametrize("side", [14, 15])
def test_padding_of_strided_convolutions_is_fixed(size, stride, side):
    layer = ConvNorm(2, 3, size, stride, layers=layers())
    x = jax.random.normal(jax.random.key(0), (1, side, side, 2))
    total = size - 1
    pads = (total // 2, total - total // 2)
    padded = np.pad(np.asarray(x), [(0, 0), pads, pads, (0, 0)])
    kernel = np.asarray(layer.conv.kernel[...])
    rows = range(0, padded.shape[1] - size + 1, stride)
    literal = np.array(
        [
            [np.einsum("hwc,hwcd->d", padded[0, r : r + size, c : c + size], kernel) for c in rows]
            for r in rows
        ]
    )
    np.testing.assert_allclose(layer.conv(x)[0], literal, rtol=1e-4, atol=1e-5)


def test_blocks_keep_their_order_when_merged():
    # A merged nnx.Dict has "block10" before "block2"; the 23 blocks of group 3 must not.
    order = []

    def forward(x, key):
        model = small(depth=101, drop=DROP)
        model = nnx.merge(*nnx.split(model))
        order.extend(model(x, train=False, rng=key)["kept"])

    jax.eval_shape(forward, jnp.ones((1, 28, 28, 1)), jax.random.key(0))
    names = [name for name in order if name.startswith("group3") and name.endswith(".skip")]
    assert names == [f"group3.block{number}.skip" for number in range(1, 24)]


def test_a_backbone_has_no_head_and_other_constants():
    norm = Norm(momentum=0.997, epsilon=1e-4)
    model = nnx.eval_shape(lambda: small(classes=None, norm=norm))
    norms = [module for _, module in nnx.iter_modules(model) if isinstance(module, nnx.BatchNorm)]
    assert {(bn.momentum, bn.epsilon) for bn in norms} == {(0.997, 1e-4)}
    assert model.head is None
    groups = zip((1, 2, 3, 4), (1, 2, 4, 8), (4, 8, 16, 32), strict=True)
    assert model.features == tuple((f"group{g}", stride, width) for g, stride, width in groups)
    assert nnx.eval_shape(make).features[0] == ("group1", 4, 64)


def test_pytorchs_convention_is_its_padding_and_epsilon():
    norm = Norm(momentum=0.997, epsilon=1e-4)
    for convention, epsilon, same in (("tensorflow", 1e-4, True), ("pytorch", 1e-5, False)):
        model = nnx.eval_shape(lambda: small(convention=convention, classes=None, norm=norm))  # noqa: B023
        norms = [part for _, part in nnx.iter_modules(model) if isinstance(part, nnx.BatchNorm)]
        assert {(bn.momentum, bn.epsilon) for bn in norms} == {(0.997, epsilon)}
        assert (model.pool_padding == "SAME") == same
    assert small(convention="pytorch").pool_padding == ((1, 1), (1, 1))


def test_dropping_needs_a_key_and_only_a_key(key):
    model, x = small(drop=DROP), jnp.ones((2, 28, 28, 1))
    with pytest.raises(ValueError, match="rng must be a JAX key"):
        model(x, train=True)
    assert model(x, train=False)["kept"] == {}
    # Dropping with BatchNorm in eval mode: Figure 5, and Monte-Carlo uncertainty.
    before = jax.tree.map(jnp.copy, nnx.state(model, nnx.BatchStat))
    kept = model(x, train=False, keep_prob=0.5, rng=key)["kept"]
    assert min(float(k.min()) for k in kept.values()) < 1
    jax.tree.map(np.testing.assert_array_equal, before, nnx.state(model, nnx.BatchStat))


def test_train_updates_batch_statistics():
    model = small()
    x = jax.random.normal(jax.random.key(1), (8, 28, 28, 1))
    stem = model.stem.conv(x)
    model(x, train=True)
    literal = 0.1 * np.asarray(stem).mean((0, 1, 2))
    np.testing.assert_allclose(model.stem.norm.mean[...], literal, rtol=1e-4, atol=1e-6)


def test_keep_prob_1_changes_nothing(key):
    x = jax.random.normal(jax.random.key(1), (2, 28, 28, 1))
    plain = run(x, train=False)["logits"]
    dropped = run(x, key, train=False, keep_prob=1.0, drop=DROP)
    np.testing.assert_array_equal(plain, dropped["logits"])
    assert all((kept == 1).all() for kept in dropped["kept"].values())


@pytest.mark.parametrize("kind", ["dropblock", "dropout", "spatial_dropout", "drop_path"])
def test_every_kind_drops(key, kind):
    drop = Drop(kind, {"group4": 1.0}, block_size=3)
    # 96 examples: of all kinds DropPath, which drops whole ones, is the least certain, to 1e-9.
    kept = run(jnp.ones((96, 28, 28, 1)), key, train=True, keep_prob=0.5, drop=drop)["kept"]
    assert len(kept) == (1 if kind == "drop_path" else 3)
    assert all(0.2 < float(k.mean()) < 0.9 for k in kept.values())


def test_bfloat16_computes_in_half_and_keeps_parameters_in_float32(key):
    x = jnp.ones((2, 28, 28, 1))
    out = run(x, key, train=True, keep_prob=0.9, drop=DROP, dtype=jnp.bfloat16)
    assert {out[name].dtype for name in ("stem", "group4")} == {jnp.dtype("bfloat16")}
    assert out["logits"].dtype == jnp.float32
    model = nnx.eval_shape(lambda: small(dtype=jnp.bfloat16))
    state = jax.tree.leaves(nnx.state(model, (nnx.Param, nnx.BatchStat)))
    assert {x.dtype for x in state} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 20}, "depth.*20"),
        ({"stem": "tiny"}, "stem.*'tiny'"),
        ({"convention": "caffe"}, "convention.*'tensorflow', 'pytorch'.*'caffe'"),
        ({"stem_stride": 0}, "stem_stride.*0"),
        ({"width_multiplier": 0.001}, "width_multiplier.*0.001"),
        ({"drop": Drop("dropblock", {"group9": 1.0})}, "group9.*group1"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        nnx.eval_shape(lambda: make(**arguments))
