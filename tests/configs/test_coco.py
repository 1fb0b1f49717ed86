"""The RetinaNet of COCO against the numbers of docs/paper.md, sections 5 and 7."""

import math
import re

import jax
import pytest

from configs import coco_retinanet
from experiments import table3
from processes import ROOT
from tasks import make_task
from training.config import flat
from training.dry_run import dry_run
from training.optimizer import learning_rate_schedule
from training.plan import lengths, make_plan

# Section 5 and, for DropBlock's places and the classes, sections 7.6 and 7.10; lengths and learning
# rates are below.
SCRATCH = {
    "init_from": None,
    "batch_size": 64,
    "model.bn_momentum": 0.997,
    "model.bn_epsilon": 1e-4,
    "model.anchor_scale": 4.0,
    "model.anchors_per_octave": 3,
    "model.anchor_aspects": ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4)),
    "drop.kind": "none",
    "drop.keep_prob": 0.9,
    "drop.schedule": "linear",
    "drop.places.group1": 0.0,
    "drop.places.group2": 0.0,
    "drop.places.group3": 0.25,
    "drop.places.group4": 1.0,
    "drop.sites": ("conv", "skip"),
    "data.image_size": 640,
    "data.scale": (512 / 640, 768 / 640),
    "data.flip": True,
    "data.max_boxes": 100,
    "data.mean": (0.485, 0.456, 0.406),
    "data.std": (0.229, 0.224, 0.225),
    "data.num_classes": 80,
    "detection.match_iou": 0.5,
    "detection.focal_alpha": 0.25,
    "detection.focal_gamma": 1.5,
    "detection.huber_delta": 0.1,
    "detection.box_weight": 50.0,
    "detection.max_candidates": 5000,
    "detection.nms_iou": 0.5,
    "detection.min_score": 0.0,
    "detection.max_detections": (100,),
    "optimizer.momentum": 0.9,
    "optimizer.nesterov": False,
    "optimizer.weight_decay": 1e-4,
    "optimizer.clip_norm": None,
}

# Counted by hand. The ResNet-50 without its head; of the pyramid the laterals, five convolutions
# and BNs; of the two heads four convolutions, a BN for each of them and each level, and the output.
_CONV = 9 * 256 * 256 + 256
PARAMETERS = 25_557_032 - 2049 * 1000
PARAMETERS += (512 + 1024 + 2048 + 3) * 256 + 5 * (_CONV + 2 * 256)
PARAMETERS += 2 * 4 * (_CONV + 5 * 2 * 256) + (9 * 256 + 1) * 9 * (80 + 4)

# Table 3: what each row changes.
ROWS = {
    "finetune": {"init_from": "runs/imagenet_resnet50"},
    "scratch": {},
    "block1": {"drop.kind": "dropblock", "drop.block_size": 1},
    "block3": {"drop.kind": "dropblock", "drop.block_size": 3},
    "block5": {"drop.kind": "dropblock", "drop.block_size": 5},
    "block7": {"drop.kind": "dropblock", "drop.block_size": 7},
}


@pytest.mark.parametrize("variant", ROWS)
def test_the_fields_are_the_papers(variant):
    config = flat(coco_retinanet.get_config(variant).to_dict())
    expected = SCRATCH | ROWS[variant]
    assert {name: config[name] for name in expected} == expected


def test_the_rows_are_the_papers_and_nobody_elses():
    page = (ROOT / "docs" / "paper.md").read_text()
    table = page.split("**Table 3")[1].split("\n\n")[1]
    printed = [
        tuple(map(float, re.findall(r"\d+\.\d", line.split("|", 2)[2])))
        for line in table.splitlines()[2:]
    ]
    assert printed == list(table3.PAPER.values())
    rows = table3.make_rows(coco=True)
    assert [row.variant for row in rows] == [row.name for row in rows] == list(ROWS)
    assert [row.name for row in table3.make_rows(coco=False)] == list(ROWS)[1:]
    assert not any(row.paper for row in table3.make_rows(coco=False))
    # With weights the first row starts from them, of other data as long as the others.
    for coco, variant in ((True, "finetune"), (False, "scratch")):
        first, *others = table3.make_rows(coco, "w.npz")
        assert (first.name, first.variant) == ("finetune", variant)
        assert first.overrides == {"init_from": "w.npz"}
        assert others == table3.make_rows(coco)[coco:]
    expected = re.findall(
        r"^    :(\w+) +([\d.]+) +([\d.]+) +([\d.]+)", coco_retinanet.__doc__, re.M
    )
    assert {name: tuple(map(float, numbers)) for name, *numbers in expected} == table3.PAPER


@pytest.mark.parametrize(
    ("variant", "epochs", "drops"),
    [("finetune", 28, (16, 22)), ("scratch", 150, (120, 140)), ("block5", 150, (120, 140))],
)
def test_the_learning_rates_are_the_papers(variant, epochs, drops):
    config = coco_retinanet.get_config(variant)
    # docs/paper.md section 5: 277,200 and 51,744 steps.
    assert lengths(config, config.data.num_train_examples) == (1848, 1848 * epochs)
    learning_rate = learning_rate_schedule(
        config.schedule, batch_size=64, steps_per_epoch=1848, total_steps=1848 * epochs
    )
    first, second = (1848 * epoch for epoch in drops)
    rates = {0: 0.008, 924: 0.044, 1848: 0.08, first - 1: 0.08, first + 1: 0.008}
    rates |= {second - 1: 0.008, second + 1: 0.0008}
    for step, rate in rates.items():
        assert learning_rate(step) == pytest.approx(rate, rel=1e-5), step


def test_the_network_has_the_papers_size_and_schedule():
    config = coco_retinanet.get_config("block5")
    config.data.dir = "nowhere"
    plan = make_plan(config, make_task, jax.devices()[:1], need_data=False)
    assert [float(plan.keep_prob_schedule(step)) for step in (0, 277_200)] == pytest.approx(
        [1, 0.9]
    )
    assert plan.task.anchors.shape == (76_725, 4)
    parameters = sum(math.prod(x.shape) for x in jax.tree.leaves(plan.network.params))
    assert parameters == PARAMETERS


def test_what_detection_does_not_read_cannot_be_set():
    config = coco_retinanet.get_config().lock()
    with pytest.raises(AttributeError, match="label_smoothing"):
        config.label_smoothing = 0.1
    with pytest.raises(AttributeError, match="augment"):
        config.data.augment = "small"


@pytest.mark.slow
def test_dry_run_prints_the_papers_numbers(capsys):
    config = coco_retinanet.get_config("block5")
    config.data.dir = "nowhere"
    dry_run(config, make_task, jax.devices()[:1])
    out = capsys.readouterr().out
    assert f"parameters: {PARAMETERS:,}" in out
    assert "uint8[64, 640, 640, 3]" in out and "float32[64, 100, 4]" in out
    assert "dropblock sites: 36, group3: 24, group4: 12" in out
    rates = dict(re.findall(r"epoch ([\d.]+) \(step [\d,]+\): ([\d.e-]+)", out))
    expected = {0: 0.008, 1: 0.08, 119: 0.08, 121: 0.008, 139: 0.008, 141: 0.0008}
    assert {e: float(rates[str(e)]) for e in expected} == pytest.approx(expected)
    one, eight = (
        int(re.search(rf"  {n} device.?: ([\d,]+)", out)[1].replace(",", "")) for n in (1, 8)
    )
    state = int(re.search(r"bytes of state: ([\d,]+)", out)[1].replace(",", ""))
    assert state < eight < one < 8 * eight
