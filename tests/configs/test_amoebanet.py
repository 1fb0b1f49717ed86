"""The AmoebaNet configs against the numbers of docs/paper.md, sections 4 and 7.5."""

import re

import jax
import pytest
from ml_collections import config_flags  # noqa: F401, registers the parsers of tuples

from configs import cifar10_amoebanet, imagenet_amoebanet_b
from experiments import table2
from tasks import make_task
from training.config import flat
from training.dry_run import dry_run
from training.plan import make_plan

# Section 4 and, where it is silent, section 7.5; the learning rates are below.
BASELINE = {
    "batch_size": 2048,
    "label_smoothing": 0.1,
    "aux_weight": 0.4,
    "ema_decay": 0.9999,
    "model.cells": "B",
    "model.cells_per_stack": 6,
    "model.filters": 256,
    "model.head_keep_prob": 0.5,
    "drop.kind": "none",
    "drop.keep_prob": 0.9,
    "drop.schedule": "linear",
    "drop.block_size": 11,
    "drop.places.first_half": 0.0,
    "drop.places.last_half": 1.0,
    "drop.sites": ("conv", "skip"),
    "data.image_size": 331,
    "data.augment": "inception",
    "data.mean": (0.5, 0.5, 0.5),
    "data.std": (0.5, 0.5, 0.5),
    "optimizer.name": "rmsprop",
    "optimizer.momentum": 0.9,
    "optimizer.nesterov": False,
    "optimizer.rms_decay": 0.9,
    "optimizer.rms_epsilon": 1.0,
    "optimizer.weight_decay": 4e-5,
    "optimizer.decay_biases": False,
    "optimizer.clip_norm": None,
}
ROWS = {
    "baseline": {},
    "dropblock": {"drop.kind": "dropblock"},
    "drop_path": {
        "drop.kind": "drop_path",
        "drop.keep_prob": 0.7,
        "drop.places.first_half": 1.0,
    },
}


def plan_of(config):
    return make_plan(config, make_task, jax.devices()[:1], need_data=False)


@pytest.mark.parametrize("variant", ROWS)
def test_the_fields_are_the_papers(variant):
    config = flat(imagenet_amoebanet_b.get_config(variant).to_dict())
    expected = BASELINE | ROWS[variant]
    assert {name: config[name] for name in expected} == expected
    places = {name for name in config if name.startswith("drop.places")}
    assert places == {name for name in expected if name.startswith("drop.places")}


def test_the_docstring_has_the_papers_results():
    printed = dict(re.findall(r":(\w+) +(\d\d\.\d\d)", imagenet_amoebanet_b.__doc__))
    assert printed == {name: f"{paper['top1'][0]:.2f}" for name, paper in table2.PAPER.items()}


def test_schedules_on_imagenet():
    config = imagenet_amoebanet_b.get_config("drop_path")
    config.model.cells_per_stack = 1  # the schedules do not depend on it
    plan = plan_of(config)
    assert (plan.steps_per_epoch, plan.total_steps) == (625, 212_500)
    # 5.12 at a batch of 2048; 2.4 epochs are 1500 steps, counted from the start of training.
    for step, rate in {0: 0, 1250: 2.048, 3125: 5.12 * 0.97**2, 4500: 5.12 * 0.97**3}.items():
        assert float(plan.learning_rate_schedule(step)) == pytest.approx(rate, rel=1e-5)
    assert float(plan.learning_rate_schedule(212_499)) == pytest.approx(5.12 * 0.97**141, rel=1e-4)
    assert [plan.keep_prob_schedule(step) for step in (0, 106_250, 212_500)] == (
        pytest.approx([1, 0.85, 0.7])
    )


def test_dry_run_of_the_small_network_lists_its_sites(capsys):
    config = cifar10_amoebanet.get_config("dropblock")
    dry_run(config, make_task, jax.devices()[:1])
    out = capsys.readouterr().out
    counts = re.findall(r"parameters(?: without the auxiliary head)?: ([\d,]+)", out)
    total, without = (int(count.replace(",", "")) for count in counts)
    assert 0 < without < total
    assert "dropblock sites: 23, first_half.reduction1: 11, last_half: 12" in out
    sites = dict(re.findall(r"\n  (\S+): (\d+ x \d+|no map)", out))
    assert sites["first_half.reduction1.h0.norm"] == "8 x 8"
    assert sites["last_half.cell2.h3.left.skip"] == "4 x 4"
    assert sites["head"] == "no map" and "1 sites of the network's own besides" in out
    assert re.findall(r"\n  (\d+ devices?): ", out) == ["1 device", "8 devices"]
    assert "step 23,430: 0.9000 (first_half.reduction1 0.9000, last_half 0.9000)" in out


@pytest.mark.slow
@pytest.mark.parametrize("variant", ROWS)
def test_dry_run_on_imagenet(variant, capsys):
    dry_run(imagenet_amoebanet_b.get_config(variant), make_task, jax.devices()[:1])
    out = capsys.readouterr().out
    assert "parameters without the auxiliary head: 141,747,368" in out
    if variant == "dropblock":
        assert "dropblock sites: 120, last_half: 120" in out
        maps = re.findall(r"\n  last_half\.\S+: (\d+ x \d+)", out)
        assert len(maps) == 120 and set(maps) == {"21 x 21", "11 x 11"}
