"""The COCO configs, every field of every variant, against the numbers of docs/paper.md."""

import math
import re

import jax
import pytest

from configs import (
    coco_json_retinanet,
    coco_retinanet,
    detection,
    scenes_retinanet,
    voc_xml_retinanet,
)
from experiments import table3
from processes import ROOT
from tasks import make_task
from training.config import flat, steps
from training.dry_run import dry_run
from training.optimizer import learning_rate_schedule
from training.plan import make_plan

# Sections 5 and 7: what the paper says, else what the authors' public code does.
SCRATCH = {
    "task": "detection",
    "pretrained": None,
    "batch_size": 64,
    "epochs": 150.0,
    "steps": None,
    "accumulate": 1,
    "dtype": "bfloat16",
    "ema_decay": None,
    "model.name": "retinanet",
    "model.depth": 50,
    "model.stem": "imagenet",
    "model.stem_stride": 1,
    "model.width_multiplier": 1.0,
    "model.min_level": 3,
    "model.max_level": 7,
    "model.fpn_channels": 256,
    "model.head_convs": 4,
    "model.head_channels": 256,
    "model.bn_momentum": 0.997,
    "model.bn_epsilon": 1e-4,
    "model.anchor_scale": 4.0,
    "model.anchors_per_octave": 3,
    "model.anchor_aspects": ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4)),
    "drop.kind": "none",
    "drop.keep_prob": 0.9,
    "drop.schedule": "linear",
    "drop.block_size": 5,
    "drop.places.group1": 0.0,
    "drop.places.group2": 0.0,
    "drop.places.group3": 0.25,
    "drop.places.group4": 1.0,
    "drop.sites": ("conv", "skip"),
    "drop.shared_mask": False,
    "drop.gamma_rule": "paper",
    "drop.normalize": "batch",
    "data.name": "coco/2017",
    "data.train_split": "train",
    "data.eval_split": "validation",
    "data.image_size": 640,
    "data.channels": 3,
    "data.scale": (512 / 640, 768 / 640),
    "data.flip": True,
    "data.max_boxes": 100,
    "data.mean": (0.485, 0.456, 0.406),
    "data.std": (0.229, 0.224, 0.225),
    "data.num_classes": 80,
    "data.num_train_examples": 118_287,
    "data.num_eval_examples": 5000,
    "detection.match_iou": 0.5,
    "detection.focal_alpha": 0.25,
    "detection.focal_gamma": 1.5,
    "detection.huber_delta": 0.1,
    "detection.box_weight": 50.0,
    "detection.max_candidates": 5000,
    "detection.nms_iou": 0.5,
    "detection.min_score": 0.0,
    "detection.max_detections": (100,),
    "optimizer.name": "sgd",
    "optimizer.momentum": 0.9,
    "optimizer.nesterov": False,
    "optimizer.weight_decay": 1e-4,
    "optimizer.decay_biases": True,
    "optimizer.clip_norm": None,
    "schedule.kind": "step",
    "schedule.learning_rate": 0.08,
    "schedule.reference_batch": 64,
    "schedule.warmup_epochs": 1.0,
    "schedule.warmup_start": 0.008 / 0.08,
    "schedule.boundaries": (120.0, 140.0),
    "schedule.factor": 0.1,
}

# What no number of the paper depends on.
OURS = {
    "seed",
    "data.dir",
    "data.class_names",
    "data.on_error",
    "data.num_threads",
    "data.num_workers",
    "data.annotations",
    "data.images",
    "data.scenes.size",
    "data.scenes.digit_size",
    "data.scenes.digits",
    "data.scenes.max_overlap",
    "data.scenes.seed",
    "detection.picture_score",
    "optimizer.rms_decay",
    "optimizer.rms_epsilon",
    "schedule.decay_epochs",  # of the exponential schedule
    "schedule.final_fraction",  # of the exponential and cosine schedules
    "eval_every_epochs",
    "log_every_steps",
    "checkpoint_every_steps",
    "keep_checkpoints",
}

# Counted by hand. The ResNet-50 without its head; of the pyramid the laterals, five convolutions
# and BNs; of the two heads four convolutions, a BN for each of them and each level, and the output.
_CONV = 9 * 256 * 256 + 256
PARAMETERS = 25_557_032 - 2049 * 1000
PARAMETERS += (512 + 1024 + 2048 + 3) * 256 + 5 * (_CONV + 2 * 256)
PARAMETERS += 2 * 4 * (_CONV + 5 * 2 * 256) + (9 * 256 + 1) * 9 * (80 + 4)

# Table 3: what each row changes.
ROWS = {
    "finetune": {
        "pretrained": "runs/imagenet_resnet50",
        "epochs": 28.0,
        "schedule.boundaries": (16.0, 22.0),
    },
    "scratch": {},
    "block1": {"drop.kind": "dropblock", "drop.block_size": 1},
    "block3": {"drop.kind": "dropblock", "drop.block_size": 3},
    "block5": {"drop.kind": "dropblock", "drop.block_size": 5},
    "block7": {"drop.kind": "dropblock", "drop.block_size": 7},
}
FAMILIES = (coco_retinanet, scenes_retinanet, coco_json_retinanet, voc_xml_retinanet)


@pytest.mark.parametrize("variant", ROWS)
def test_the_fields_are_the_papers(variant):
    config = flat(coco_retinanet.get_config(variant).to_dict())
    assert {name: value for name, value in config.items() if name not in OURS} == (
        SCRATCH | ROWS[variant]
    )


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
    assert steps(config, config.data.num_train_examples) == (1848, 1848 * epochs)
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
    assert [float(plan.keep_prob(step)) for step in (0, 277_200)] == pytest.approx([1, 0.9])
    assert plan.task.anchors.shape == (76_725, 4)
    parameters = sum(math.prod(x.shape) for x in jax.tree.leaves(plan.network.params))
    assert parameters == PARAMETERS


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_every_row(family):
    was = flat(family.get_config("scratch").to_dict())
    assert flat(family.get_config("baseline").to_dict()) == was
    for variant, fields in detection.VARIANTS.items():
        now = flat(family.get_config(variant).to_dict())
        changed = {name: value for name, value in now.items() if value != was[name]}
        assert changed == {name: value for name, value in fields.items() if value != was[name]}


@pytest.mark.parametrize(
    ("family", "variant"),
    list(zip(FAMILIES[1:], ["baseline", "dropblock", "block5"], strict=True)),
)
def test_every_small_config_builds(family, variant):
    config = family.get_config(variant)
    if config.data.num_classes is None:
        config.data.update({"num_classes": 7, "num_train_examples": 99, "num_eval_examples": 9})
    plan = make_plan(config, make_task, jax.devices()[:1], need_data=False)
    assert plan.total_steps > 0
    assert plan.task.drops == (variant != "baseline")


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
    dry_run(config, make_task)
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
