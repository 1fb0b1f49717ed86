"""The configs against the numbers of docs/paper.md, and that each of them builds."""

import pathlib
import re

import pytest
from ml_collections import config_flags  # noqa: F401, registers the parsers of tuples

from configs import (
    cifar10_resnet,
    defaults,
    fashion_mnist_resnet,
    image_folder_resnet,
    imagenet_resnet50,
    mnist_resnet,
    small,
)
from tasks import make_task
from training.dry_run import dry_run
from training.plan import make_plan

FAMILIES = [
    cifar10_resnet,
    fashion_mnist_resnet,
    image_folder_resnet,
    imagenet_resnet50,
    mnist_resnet,
]

# docs/paper.md sections 2 and 3: what the paper says, else what the authors' public code does.
IMAGENET = {
    "task": "classification",
    "batch_size": 1024,
    "epochs": 270.0,
    "steps": None,
    "accumulate": 1,
    "dtype": "bfloat16",
    "label_smoothing": 0.0,
    "ema_decay": None,
    "model.depth": 50,
    "model.stem": "imagenet",
    "model.width_multiplier": 1.0,
    "drop.keep_prob": 0.9,
    "drop.schedule": "linear",
    "drop.block_size": 7,
    "drop.places.group1": 0.0,
    "drop.places.group2": 0.0,
    "drop.places.group3": 0.25,
    "drop.places.group4": 1.0,
    "drop.sites": ("conv", "skip"),
    "drop.shared_mask": False,
    "drop.gamma_rule": "paper",
    "drop.normalize": "batch",
    "data.image_size": 224,
    "data.augment": "imagenet",
    "data.flip": True,
    "data.mean": (0.485, 0.456, 0.406),
    "data.std": (0.229, 0.224, 0.225),
    "data.num_classes": 1000,
    "data.num_train_examples": 1_281_167,
    "data.num_eval_examples": 50_000,
    "optimizer.momentum": 0.9,
    "optimizer.nesterov": True,
    "optimizer.weight_decay": 1e-4,
    "optimizer.clip_norm": None,
    "schedule.kind": "step",
    "schedule.learning_rate": 0.1,
    "schedule.reference_batch": 256,
    "schedule.warmup_epochs": 5.0,
    "schedule.boundaries": (125.0, 200.0, 250.0),
    "schedule.factor": 0.1,
}


def flat(tree, prefix=""):
    fields = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            fields |= flat(value, f"{prefix}{name}.")
        else:
            fields[prefix + name] = value
    return fields


@pytest.mark.parametrize(("variant", "kind"), [("baseline", "none"), ("dropblock", "dropblock")])
def test_imagenet_is_the_papers(variant, kind):
    config = flat(imagenet_resnet50.get_config(variant).to_dict())
    assert {name: config[name] for name in IMAGENET} == IMAGENET
    assert config["drop.kind"] == kind


ALL_VARIANTS = [
    (family, variant)
    for family in FAMILIES
    for variant in getattr(family, "VARIANTS", small.VARIANTS)
]


@pytest.mark.parametrize(("family", "variant"), ALL_VARIANTS)
def test_every_variant_builds(family, variant):
    config = family.get_config(variant)
    if family is image_folder_resnet:
        config.update_from_flattened_dict(
            {"data.num_classes": 7, "data.num_train_examples": 500, "data.num_eval_examples": 90}
        )
    plan = make_plan(config, lambda config: make_task(config, need_data=False))
    assert plan.total_steps > 0
    assert plan.task.drops == (config.drop.kind != "none") == (variant != "baseline")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_config_opens_with_its_command_and_its_result(family):
    name = pathlib.Path(family.__file__).name
    assert re.search(rf"\n    python train.py --config configs/{name}", family.__doc__)
    assert "\nExpected" in family.__doc__


@pytest.mark.parametrize("family", FAMILIES)
def test_no_config_adds_fields(family):
    assert (
        flat(family.get_config().to_dict()).keys() == flat(defaults.get_config().to_dict()).keys()
    )


def test_a_misspelt_variant_names_those_there_are():
    with pytest.raises(ValueError, match="no variant 'dropblok'.*baseline, dropblock"):
        mnist_resnet.get_config("dropblok")


def test_dry_run_of_imagenet_prints_the_papers_numbers(capsys):
    config = imagenet_resnet50.get_config("dropblock")
    config.data.dir = "nowhere"
    dry_run(config, make_task)
    out = capsys.readouterr().out
    assert "parameters: 25,557,032" in out
    assert "uint8[1024, 224, 224, 3]" in out
    assert "the data is missing" in out and "--name=imagenet2012" in out
    assert "dropblock sites: 36, group3: 24, group4: 12" in out
    rates = dict(re.findall(r"epoch ([\d.]+) \(step [\d,]+\): ([\d.e-]+)", out))
    expected = {0: 0, 5: 0.4, 124: 0.4, 126: 0.04, 199: 0.04, 201: 0.004, 249: 0.004, 251: 0.0004}
    assert {e: float(rates[str(e)]) for e in expected} == pytest.approx(expected)
    assert re.search(r"step 0: 1.0000 \(group3 1.0000, group4 1.0000\)", out)
    assert re.search(r"step 168,885: 0.9500 \(group3 0.9875, group4 0.9500\)", out)
    assert re.search(r"step 337,770: 0.9000 \(group3 0.9750, group4 0.9000\)", out)
    # 3 passes of 4.1e9 multiply-adds an image, less what the first layer need not pass back.
    flops = float(re.search(r"FLOPs of a training step.*: ([\d.e+]+)", out)[1])
    assert flops / 1024 == pytest.approx(3 * 2 * 4.1e9, rel=0.05)
