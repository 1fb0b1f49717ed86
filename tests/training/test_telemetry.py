"""Watching what is dropped, and that numbers are finite."""

import types

import jax.numpy as jnp
import pytest

from training.config import ConfigError, Diverged
from training.step import SiteSums
from training.telemetry import SiteWatch, flat, place_means, read


def sums(dropped, seeds=10.0, count=4.0, expected=1.0):
    return SiteSums(*map(jnp.float32, (count, dropped, expected, seeds)))


def test_a_site_that_never_drops_stops_the_run():
    watch = SiteWatch()
    for _ in range(3):
        watch.update({"group4.skip": sums(0.0), "group4.conv1": sums(0.5)})
    with pytest.raises(ConfigError, match=r"group4.skip has dropped nothing.*40 seeds"):
        watch.update({"group4.skip": sums(0.0)})


def test_a_site_that_dropped_once_is_trusted():
    watch = SiteWatch()
    watch.update({"site": sums(1e-6)})
    for _ in range(100):
        watch.update({"site": sums(0.0)})


def test_few_expected_seeds_are_no_reason():
    watch = SiteWatch()
    for _ in range(90):
        watch.update({"site": sums(0.0, seeds=0.3)})


def test_thirty_expected_seeds_are_the_limit():
    watch = SiteWatch()
    watch.update({"site": sums(0.0, seeds=30.0)})
    with pytest.raises(ConfigError, match="site has dropped nothing"):
        watch.update({"site": sums(0.0, seeds=0.5)})


def test_places_are_means_over_sites_and_examples():
    sites = {"a.x": sums(1.0, expected=0.8), "a.y": sums(0.2, expected=0.4), "b.x": sums(2.0)}
    means = place_means(sites, lambda site: site[0])
    assert means == pytest.approx(
        {
            "kept/a": 1 - 1.2 / 8,
            "expected_kept/a": 1 - 1.2 / 8,
            "kept/b": 0.5,
            "expected_kept/b": 0.75,
        }
    )


def test_a_site_of_the_networks_own_counts_under_the_first_part_of_its_name():
    means = place_means({"head.a": sums(1.0), "head.b.c": sums(3.0)}, lambda site: None)
    assert means == pytest.approx({"kept/head": 0.5, "expected_kept/head": 0.75})


def test_the_metrics_of_a_step_are_named():
    drop = types.SimpleNamespace(place_of=lambda site: site[0])
    task = types.SimpleNamespace(summarize=lambda sums: {"loss": sums["loss"] / 4}, drop=drop)
    metrics = {"sums": {"loss": 2.0}, "grad_norm": 3.0, "learning_rate": 0.25, "keep_prob": 0.5}
    assert flat(metrics | {"sites": {"a.x": sums(1.0)}}, task) == {
        "train/loss": 0.5,
        "train/grad_norm": 3.0,
        "sched/learning_rate": 0.25,
        "sched/keep_prob": 0.5,
        "kept/a": 0.75,
        "expected_kept/a": 0.75,
    }


@pytest.mark.parametrize("name", ["loss", "grad_norm"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_names_its_step(name, value):
    metrics = {"loss": jnp.float32(1), "grad_norm": jnp.float32(1), "sites": {}}
    read(7, metrics, SiteWatch())
    with pytest.raises(Diverged, match=f"{name} is {value} at step 7"):
        read(7, metrics | {name: jnp.float32(value)}, SiteWatch())


def test_a_step_in_which_a_site_is_silently_off_stops_the_run():
    metrics = {"loss": jnp.float32(1), "grad_norm": jnp.float32(1), "sites": {"a": sums(0.0, 99.0)}}
    with pytest.raises(ConfigError, match="drop site a has dropped nothing"):
        read(7, metrics, SiteWatch())
