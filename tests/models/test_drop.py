"""One description of dropping for every model: what is active, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropblock
from models.drop import Drop, Site, Sites, at_site, check_key

PLACES = {"group3": 0.25, "group4": 1.0}


def build(drop, names=("group3.block1", "group4.block1", "group4.block2")):
    """The sites of a network of residual blocks, by name; None where nothing happens."""
    possible = Sites(drop)
    sites = {}
    for name in names:
        for conv in ("conv1", "conv2"):
            sites[f"{name}.{conv}"] = possible.add(
                f"{name}.{conv}", "conv", ends_branch=conv == "conv2"
            )
        sites[f"{name}.skip"] = possible.add(f"{name}.skip", "skip")
    possible.check()
    return sites


def active(sites):
    return [name for name, site in sites.items() if site is not None]


def test_every_site_has_its_own_index_whatever_is_active():
    everything = build(Drop("dropblock", PLACES))
    some = build(Drop("dropblock", {"group4.block2": 1.0}, sites=("skip",)))
    assert active(some) == ["group4.block2.skip"]
    assert some["group4.block2.skip"].index == everything["group4.block2.skip"].index == 8
    assert len({site.index for site in everything.values()}) == 9


def test_the_longest_prefix_wins_and_a_prefix_ends_at_a_dot():
    sites = build(
        Drop("dropblock", {"group4": 1.0, "group4.block2": 0.5, "group3": 0.25}),
        names=("group3.block1", "group4.block1", "group4.block2"),
    )
    factors = {name.rsplit(".", 1)[0]: site.factor for name, site in sites.items()}
    assert factors == {"group3.block1": 0.25, "group4.block1": 1.0, "group4.block2": 0.5}
    off = build(Drop("dropblock", {"group4": 1.0, "group4.block2": 0.0, "group7": 0.0}))
    assert {name.rsplit(".", 1)[0] for name in active(off)} == {"group4.block1"}
    with pytest.raises(ValueError, match=r"'group' match no|\['group'\]"):
        build(Drop("dropblock", {"group": 1.0}))


@pytest.mark.parametrize("kind", ["dropblock", "dropout", "spatial_dropout"])
def test_kinds_of_sites(kind):
    convs = active(build(Drop(kind, PLACES, sites=("conv",))))
    skips = active(build(Drop(kind, PLACES, sites=("skip",))))
    assert all("conv" in name for name in convs) and len(convs) == 6
    assert all("skip" in name for name in skips) and len(skips) == 3


def test_drop_path_acts_once_a_block_at_the_end_of_the_branch():
    names = active(build(Drop("drop_path", {"group4": 1.0}, sites=("conv",))))
    assert names == ["group4.block1.conv2", "group4.block2.conv2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "blockdrop"}, "drop.kind.*'blockdrop'"),
        ({"kind": "dropblock"}, "drop.places must name"),
        ({"kind": "dropblock", "places": {"group4": 1.5}}, r"drop.places\['group4'\].*1.5"),
        ({"kind": "dropblock", "places": PLACES, "sites": ("convs",)}, "drop.sites.*'convs'"),
        ({"kind": "dropblock", "places": PLACES, "block_size": 0}, "block_size.*0"),
        ({"kind": "dropblock", "places": PLACES, "block_size": (3, 3, 3)}, r"\(3, 3, 3\)"),
        ({"kind": "dropblock", "places": PLACES, "gamma_rule": "rate"}, "gamma_rule.*'rate'"),
        ({"kind": "dropblock", "places": PLACES, "normalize": "none"}, "normalize.*'none'"),
    ],
)
def test_a_wrong_description_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Drop(**arguments)


def test_a_place_without_a_site_is_refused_and_the_places_are_named():
    with pytest.raises(ValueError, match=r"\['group5'\].*group3, group4"):
        build(Drop("dropblock", {"group4": 1.0, "group5": 1.0}))
    # No skip among the sites of this kind: the place would be silently off.
    with pytest.raises(ValueError, match="head"):
        build(Drop("dropblock", {"group4": 1.0, "head": 1.0}, sites=("skip",)))


def test_training_without_a_key_is_refused():
    check_key(Drop(), True, None)
    check_key(Drop("dropblock", PLACES), False, None)
    with pytest.raises(ValueError, match="rng must be a JAX key"):
        check_key(Drop("dropblock", PLACES), True, None)


@pytest.mark.parametrize(
    ("kind", "expected", "seeds"),
    [
        # keep_prob 0.6 in a place of factor 0.5 is 0.8 there.
        ("dropblock", None, None),
        ("dropout", 0.8, 0.2 * 64 * 10 * 12 * 16),
        ("spatial_dropout", 0.8, 0.2 * 64 * 16),
        ("drop_path", 0.8, 0.2 * 64),
    ],
)
def test_a_site_drops_and_reports(key, kind, expected, seeds):
    drop = Drop(kind, {"group4": 0.5}, block_size=3)
    site = build(drop)["group4.block1.conv2"]
    x = jnp.ones((64, 10, 12, 16))
    y, reports = jax.jit(site)(x, 0.6, key)
    report = reports["group4.block1.conv2"]
    if kind == "dropblock":
        gamma = dropblock.block_gamma(0.8, (10, 12), 3)
        expected = dropblock.expected_keep(gamma, (10, 12), 3)
        seeds = gamma * 64 * 8 * 10 * 16
    np.testing.assert_allclose(report.expected, expected, rtol=1e-5)
    np.testing.assert_allclose(report.seeds, seeds, rtol=1e-5)
    assert report.map_shape.shape == (10, 12)
    zeros = np.asarray((y == 0).mean((1, 2, 3)))
    np.testing.assert_allclose(report.kept, 1 - zeros, atol=1e-6)
    # 64 examples: 6 sigma of the least certain kind, which drops whole examples.
    assert abs(float(report.kept.mean()) - expected) < 6 * 0.4 / 8


def test_a_report_goes_in_and_out_of_jit(key):
    site = build(Drop("dropblock", PLACES, block_size=3))["group4.block1.conv2"]
    _, reports = site(jnp.ones((2, 6, 5, 4)), 0.9, key)
    again = jax.jit(lambda reports: reports)(reports)
    assert again["group4.block1.conv2"].map_shape.shape == (6, 5)


def test_sites_draw_different_masks_from_one_key(key):
    sites = build(Drop("dropblock", PLACES, block_size=3))
    x = jnp.ones((4, 10, 10, 8))
    masks = [site(x, 0.5, key)[0] == 0 for site in sites.values()]
    for index, mask in enumerate(masks):
        assert mask.any()
        assert all((mask != other).any() for other in masks[:index])


@pytest.mark.parametrize("index", [0, 1, 63, 64, 130])
def test_a_sites_key_is_the_networks_with_its_number_folded_in(key, index):
    x = jnp.ones((4, 3, 3, 32))
    y, _ = Site("conv", index, 1.0, Drop("dropout", {"conv": 1.0}))(x, 0.5, key)
    np.testing.assert_array_equal(y, dropblock.dropout(jax.random.fold_in(key, index), x, 0.5))


def test_nothing_happens_without_a_site_or_a_key(key):
    x = jnp.ones((2, 6, 6, 4))
    site = build(Drop("dropblock", PLACES))["group4.block1.skip"]
    assert at_site(None, x, 0.5, key)[0] is x
    assert at_site(site, x, 0.5, None) == (x, {})


def test_blocks_are_the_papers_where_nothing_is_said():
    assert Drop("dropblock", PLACES) == Drop("dropblock", PLACES, block_size=7)


def test_a_drop_can_be_hashed():
    assert hash(Drop("dropblock", PLACES)) == hash(Drop("dropblock", dict(PLACES)))


@pytest.mark.parametrize("kind", ["dropblock", "dropout", "spatial_dropout", "drop_path"])
def test_a_pods_batch_may_have_more_elements_than_an_integer(key, kind):
    """On a pod a global batch has more than 2^31; by shape, since it is 10 GB."""
    site = build(Drop(kind, {"group4": 1.0}, block_size=1))["group4.block1.conv2"]
    x = jax.ShapeDtypeStruct((16384, 14, 14, 1024), jnp.float32)
    y, reports = jax.eval_shape(site, x, jax.ShapeDtypeStruct((), jnp.float32), key)
    assert y.shape == x.shape and reports["group4.block1.conv2"].seeds.shape == ()
