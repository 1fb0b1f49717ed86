"""The pyramid and its heads: levels, upsampling, sharing, sites."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.drop import Drop, Sites
from models.fpn import FPN, NORM, PyramidHead, upsample
from models.layers import Layers

NO_DROP = Drop()


def layers():
    return Layers(NORM, jnp.float32, None, nnx.Rngs(params=0))


def make_fpn(backbone, drop=NO_DROP, **arguments):
    return FPN(backbone, sites=Sites(drop), layers=layers(), **arguments)


def test_levels_are_summed_from_coarse_to_fine():
    @jax.jit
    def literal_too(features):
        fpn = make_fpn({1: 2, 2: 3}, min_level=1, max_level=4, channels=4)
        assert fpn.levels == ("p1", "p2", "p3", "p4")
        maps, reports = fpn(features, train=False)
        assert list(maps) == list(fpn.levels) and reports == {}
        # Step by step.
        c2 = fpn.laterals["p2"](features[2])
        c1 = fpn.laterals["p1"](features[1]) + jnp.kron(c2, jnp.ones((1, 2, 2, 1)))
        expected = {"p1": fpn.smooth["p1"](c1), "p2": fpn.smooth["p2"](c2)}
        # Above the backbone: of the level below, before its BN; from the second on rectified.
        expected["p3"] = fpn.coarser["p3"](expected["p2"])
        expected["p4"] = fpn.coarser["p4"](nnx.relu(expected["p3"]))
        return maps, expected

    features = {
        1: jax.random.normal(jax.random.key(1), (1, 8, 8, 2)),
        2: jax.random.normal(jax.random.key(2), (1, 4, 4, 3)),
    }
    maps, expected = literal_too(features)
    for name, x in maps.items():
        scaled = expected[name] / np.sqrt(1 + 1e-4)  # BN that has seen nothing, without a ReLU
        np.testing.assert_allclose(x, scaled, rtol=1e-4, atol=1e-5)
    assert (maps["p1"] < 0).any()


def test_nearest_upsampling_repeats():
    x = jnp.arange(6.0).reshape(1, 2, 3, 1)
    expected = np.kron(x[0, ..., 0], np.ones((2, 2)))
    np.testing.assert_array_equal(upsample(x, (4, 6), "nearest")[0, ..., 0], expected)
    # A map of odd size, whose half was rounded up.
    np.testing.assert_array_equal(upsample(x, (3, 5), "nearest")[0, ..., 0], expected[:3, :5])


@pytest.mark.parametrize("size", [(17, 33), (9, 11), (5, 7)])
def test_bilinear_upsampling_keeps_the_corners(size):
    # What is linear in the position stays so, from corner to corner.
    rows, columns = np.linspace(0, 1, 5), np.linspace(0, 2, 7)
    x = jnp.asarray(3 * rows[:, None] - columns[None, :], jnp.float32)[None, :, :, None]
    rows, columns = np.linspace(0, 1, size[0]), np.linspace(0, 2, size[1])
    expected = 3 * rows[:, None] - columns[None, :]
    y = upsample(x, size, "bilinear")
    np.testing.assert_allclose(y[0, ..., 0], expected, atol=1e-5)
    assert upsample(x.astype(jnp.bfloat16), size, "bilinear").dtype == jnp.bfloat16


def test_bilinear_upsampling_of_a_row():
    x = jnp.array([0.0, 4.0, 2.0]).reshape(1, 1, 3, 1)
    y = upsample(x, (2, 5), "bilinear")
    np.testing.assert_allclose(y[0, ..., 0], [[0, 2, 4, 3, 2]] * 2)


def make_head(drop=NO_DROP, **arguments):
    arguments = {"num_convs": 2, "channels": 4, "bias": -4.6, **arguments}
    return PyramidHead("head", ("p1", "p2"), 3, 5, sites=Sites(drop), layers=layers(), **arguments)


def test_heads_share_convolutions_and_not_batch_norm():
    @jax.jit
    def call(x):
        head = make_head()
        before, _ = head({"p1": x, "p2": x}, train=False)
        head({"p1": x, "p2": 5 * x}, train=True)
        after, _ = head({"p1": x, "p2": x}, train=False)
        variances = [{level: bn.var[...] for level, bn in norms.items()} for norms in head.norms]
        return before, variances, after

    before, variances, after = call(jax.random.normal(jax.random.key(0), (2, 4, 4, 3)))
    assert before["p1"].shape == (2, 4, 4, 5)
    np.testing.assert_array_equal(before["p1"], before["p2"])
    # Each level has statistics of its own.
    assert len(variances) == 2 and (variances[0]["p2"] > variances[0]["p1"]).all()
    assert not np.array_equal(after["p1"], after["p2"])


def test_initialisers_of_heads():
    head = make_head(channels=64)
    kernel = np.asarray(head.convs[1].kernel[...])
    assert kernel.std() == pytest.approx(0.01, rel=0.02)
    np.testing.assert_array_equal(head.output.bias[...], np.full(5, -4.6, np.float32))
    assert not head.convs[0].bias[...].any()


def test_sites_of_pyramid_and_head(key):
    drop = Drop("dropblock", {"fpn": 0.5, "head": 1.0}, block_size=2)

    def names(key):
        fpn = make_fpn({1: 2, 2: 3}, drop, min_level=1, max_level=3, channels=4)
        features = {1: jnp.ones((2, 8, 8, 2)), 2: jnp.ones((2, 4, 4, 3))}
        _, of_fpn = fpn(features, False, 0.5, key)
        _, of_head = make_head(drop)({"p1": features[2], "p2": features[2]}, False, 0.5, key)
        found.extend([list(of_fpn), list(of_head)])

    found = []
    jax.eval_shape(names, key)
    of_head = [f"head.conv{number}.p{level}" for level in (1, 2) for number in (1, 2)]
    assert found == [["fpn.p1", "fpn.p2", "fpn.p3"], of_head]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_level": 2}, "min_level.*3, 4, 5.*2 and 7"),
        ({"max_level": 4}, "max_level.*at least 5.*4"),
        ({"channels": 0}, "channels.*0"),
        ({"upsampling": "cubic"}, "upsampling.*'cubic'"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_fpn({3: 8, 4: 8, 5: 8}, **arguments)
    with pytest.raises(ValueError, match="4, 5 and -1"):
        make_head(num_convs=-1)
