"""evaluate.py, in this process: what acts when it drops."""

import jax
import pytest

import random_runs
import tiny
from configs import amoebanet
from evaluate import evaluate
from models.cell_tables import CELLS, Cells, Table
from tasks.drop import drop_at_inference
from training.config import ConfigError
from training.monte_carlo import SCORES

# A cell of few operations, which compiles in seconds.
LIGHT = Cells(
    Table(("none @1 + 1x1 @0",), used="1 0 0"),
    Table(("1x1 @1 + max_pool_2x2 @0",), used="1 1 0"),
)


def get_config():
    """An AmoebaNet on the digits of tests/tiny.py, that was trained with dropout at its head."""
    config = amoebanet.get_config()
    config.data = tiny.get_config().data
    config.batch_size = 16
    config.epochs = 3.0
    config.model.update({"stem": "small", "stem_stride": 4, "cells_per_stack": 1, "filters": 4})
    config.aux_weight = 0.0
    return config


def test_the_mean_of_samples_is_judged_beside_the_plain_prediction(monkeypatch, tmp_path):
    one_device = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: one_device)
    random_runs.save(tiny.get_config(), tmp_path)
    found = evaluate(tiny.get_config(), tmp_path, keep_prob=0.5, mc_samples=3, out=tmp_path)
    assert (found["mc_samples"], found["keep_prob"]) == (3, 0.5)
    for judged in (found["plain"], found["mc"]):
        assert judged["examples"] == 50 and 0 <= judged["ece"] <= 1
        # That of every example's own class, whose mean is the loss.
        assert judged["nll"] == pytest.approx(judged["loss"], rel=1e-5)
        for interval in judged["auroc"].values():
            assert 0 <= interval["low"] < interval["value"] < interval["high"] <= 1
    assert found["plain"]["auroc"].keys() == set(SCORES[:2])
    assert found["mc"]["auroc"].keys() == set(SCORES)
    kept = {name: value for name, value in found["mc"].items() if name.startswith("kept/")}
    assert kept and all(value < 0.95 for value in kept.values())
    assert not any(name.startswith("kept/") for name in found["plain"])
    assert (tmp_path / "examples.png").exists()


def test_a_run_without_dropping_must_be_told_how_much_to_drop(tmp_path):
    config = tiny.get_config("baseline")
    with pytest.raises(ConfigError, match="^the run was trained without dropping: say by --keep"):
        evaluate(config, tmp_path, mc_samples=3)
    assert drop_at_inference(config, 0.7) == 0.7 and config.drop.kind == "dropblock"
    assert drop_at_inference(tiny.get_config()) == tiny.get_config().drop.keep_prob


def test_the_drop_sites_alone_act_in_an_amoebanet(monkeypatch, tmp_path):
    one_device = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: one_device)
    monkeypatch.setitem(CELLS, "B", LIGHT)
    random_runs.save(get_config(), tmp_path)
    plain = evaluate(get_config(), tmp_path)
    assert not any(name.startswith("kept/") for name in plain)
    # No site drops at keep_prob 1; the head's dropout would.
    nothing = evaluate(get_config(), tmp_path, keep_prob=1.0)
    places = {"kept/last_half", "expected_kept/last_half"}
    assert {name for name in nothing if "kept/" in name} == places
    assert nothing == pytest.approx(plain | dict.fromkeys(places, 1.0), rel=1e-5)
    # Of at least 4,000 maps, mostly dropped whole: 0.1 is 12 deviations.
    dropped = evaluate(get_config(), tmp_path, keep_prob=0.5)
    assert dropped["kept/last_half"] == pytest.approx(dropped["expected_kept/last_half"], abs=0.1)
