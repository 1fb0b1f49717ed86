"""The FCN of PASCAL VOC against the numbers of docs/paper.md, sections 6 and 7."""

import inspect
import re

import jax
import pytest
from ml_collections import config_flags  # noqa: F401, registers the parsers of tuples

from configs import segmentation, voc_fcn
from experiments import table4
from tasks import make_task
from training.config import flat
from training.dry_run import dry_run
from training.plan import make_plan

# Section 6 and, for DropBlock's places, section 7.7; lengths and learning rates are below.
SCRATCH = {
    "init_from": None,
    "batch_size": 64,
    "model.depth": 101,
    "model.min_level": 3,
    "model.max_level": 5,
    "model.fpn_channels": 256,
    "model.head_convs": 3,
    "model.head_channels": 256,
    "model.bn_momentum": 0.997,
    "model.bn_epsilon": 1e-4,
    "drop.kind": "none",
    "drop.keep_prob": 0.2,
    "drop.schedule": "linear",
    "drop.places.head": 1.0,
    "drop.places.group3": 0.0,
    "drop.places.group4": 0.0,
    "data.image_size": 513,
    "data.scale": (0.75, 1.5),
    "data.flip": True,
    "data.num_classes": 21,
    "data.num_train_examples": 10_582,
    "data.num_eval_examples": 1_449,
    "optimizer.momentum": 0.9,
    "optimizer.nesterov": False,
    "optimizer.weight_decay": 1e-5,
}
HEAD = {"drop.kind": "dropblock"}
# Table 4: what each row changes; then the backbone in the head's place.
ROWS = {
    "finetune": {"init_from": "runs/imagenet_resnet101"},
    "scratch": {},
    "block1": HEAD | {"drop.block_size": 1},
    "block4": HEAD | {"drop.block_size": 4},
    "block16": HEAD | {"drop.block_size": 16},
    "backbone": HEAD
    | {"drop.places.head": 0.0, "drop.places.group3": 0.25, "drop.places.group4": 1.0},
}


@pytest.mark.parametrize("variant", ROWS)
def test_the_fields_are_the_papers(variant):
    config = flat(voc_fcn.get_config(variant).to_dict())
    expected = SCRATCH | ROWS[variant]
    assert {name: config[name] for name in expected} == expected
    assert len(config["data.class_names"]) == 21


def test_every_row_of_the_table_is_a_variant():
    assert list(ROWS) == ["finetune", *segmentation.VARIANTS][: len(ROWS)]
    voc, other = table4.make_rows(True), table4.make_rows(False)
    assert {row.variant for row in voc} == set(ROWS)
    assert {row.variant for row in other} == set(ROWS) - {"finetune"}
    assert [row.overrides for row in other[-3:]] == [{"drop.block_size": b} for b in (1, 4, 16)]
    for voc_rows, variant in ((True, "finetune"), (False, "scratch")):
        first, *others = table4.make_rows(voc_rows, "w.npz")
        assert (first.name, first.variant) == ("finetune", variant)
        assert first.overrides == {"init_from": "w.npz"}
        assert others == table4.make_rows(voc_rows)[voc_rows:]
    # The page and the config's docstring have the same numbers.
    doc = inspect.getdoc(voc_fcn) or ""
    for row in voc[:5]:
        assert re.search(rf":{row.name} +{row.paper['mIoU'][0]}", doc)


def plan_of(config):
    config.data.dir = "nowhere"
    return make_plan(config, make_task, jax.devices()[:1], need_data=False)


def test_the_papers_schedules():
    lengths = {"finetune": (45, 25, 35), "block16": (500, 278, 389)}
    for variant, (epochs, first, second) in lengths.items():
        config = voc_fcn.get_config(variant)
        config.model.depth = 10  # the schedules are the same
        plan = plan_of(config)
        assert (plan.steps_per_epoch, plan.total_steps) == (165, 165 * epochs)
        rates = {0: 0.002, 0.5: 0.011, 1: 0.02, first - 1: 0.02, first + 1: 0.002}
        rates |= {second - 1: 0.002, second + 1: 0.0002}
        for epoch, rate in rates.items():
            assert plan.learning_rate_schedule(165 * epoch) == pytest.approx(rate, rel=0.01), epoch
    assert [float(plan.keep_prob_schedule(82_500 * part)) for part in (0, 0.5, 1)] == pytest.approx(
        [1, 0.6, 0.2], abs=1e-6
    )


@pytest.mark.slow
@pytest.mark.parametrize("variant", ROWS)
def test_every_variant_passes_a_dry_run(variant, capsys):
    config = voc_fcn.get_config(variant)
    config.data.dir = "nowhere"
    config.init_from = None  # a dry run would look for it
    dry_run(config, make_task, jax.devices()[:1])
    out = capsys.readouterr().out
    # ResNet-101 42,500,160; laterals 918,272; 3x3 convolutions of the pyramid 1,770,240 and of the
    # head 4 x 590,080; BatchNorm of both and of the sum 6,656; the last convolution 48,405.
    assert "parameters: 47,604,053" in out and "uint8[64, 513, 513, 3]" in out
    assert "FLOPs of a training step" in out
