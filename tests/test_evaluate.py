"""evaluate.py, in this process: what acts when it drops."""

import jax
import pytest

import random_runs
import tiny
from configs import amoebanet
from evaluate import evaluate
from models.cell_tables import CELLS, Cells, Table

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
