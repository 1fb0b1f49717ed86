"""The ResNet-50 of ImageNet against the numbers of docs/paper.md, sections 2, 3 and 7."""

import functools
import math
import re

import jax
import pytest
from flax import nnx
from ml_collections import config_flags  # noqa: F401, registers the parsers of tuples

from configs import imagenet_resnet50, methods
from experiments import table1
from tasks import make_task
from training.config import flat
from training.dry_run import dry_run
from training.plan import make_plan

# Section 3.2; lengths and learning rates are below, by what they come to.
BASELINE = {
    "batch_size": 1024,
    "label_smoothing": 0.0,
    "ema_decay": None,
    "data.image_size": 224,
    "data.augment": "imagenet",
    "data.flip": True,
    "data.autoaugment": "none",
    "data.cutout": 0.0,
    "data.mean": (0.485, 0.456, 0.406),
    "data.std": (0.229, 0.224, 0.225),
    "optimizer.name": "sgd",
    "optimizer.momentum": 0.9,
    "optimizer.nesterov": True,
    "optimizer.weight_decay": 1e-4,
    "optimizer.decay_biases": True,
}
DROPBLOCK = {"drop.block_size": 7, "drop.gamma_rule": "paper", "drop.normalize": "batch"}
# Sections 3.2 and 7.3: what these rows of Table 1 change, besides DROPS.
ROWS = {
    "cutout": {"data.cutout": 0.5},
    "autoaugment": {"data.autoaugment": "imagenet"},
    "label_smoothing": {"label_smoothing": 0.1},
    "dropblock": DROPBLOCK,
    "dropblock_label_smoothing": DROPBLOCK | {"label_smoothing": 0.1},
}
# Sections 2.2 to 2.4 and 3.2: what is dropped, its keep_prob at the end, and how many sites act in
# groups 1 to 4, of 3, 4, 6 and 3 bottleneck blocks.
DROPS = {
    "dropout": ("dropout", 0.7, [0, 0, 18, 9]),
    "spatial_dropout": ("spatial_dropout", 0.9, [0, 0, 18, 9]),
    "drop_path": ("drop_path", 0.9, [0, 0, 0, 3]),
    "drop_path_groups34": ("drop_path", 0.9, [0, 0, 6, 3]),
    "drop_path_all": ("drop_path", 0.9, [3, 4, 6, 3]),
    "dropblock": ("dropblock", 0.9, [0, 0, 24, 12]),
    "dropblock_label_smoothing": ("dropblock", 0.9, [0, 0, 24, 12]),
}


@pytest.mark.parametrize("variant", methods.VARIANTS)
def test_the_fields_are_the_papers(variant):
    config = flat(imagenet_resnet50.get_config(variant).to_dict())
    expected = BASELINE | ROWS.get(variant, {})
    assert {name: config[name] for name in expected} == expected


def test_the_docstring_has_the_papers_results():
    printed = dict(re.findall(r":(\w+) +(\d\d\.\d\d)", imagenet_resnet50.__doc__))
    assert printed == {name: f"{paper['top1'][0]:.2f}" for name, paper in table1.PAPER.items()}


@functools.cache
def plan_of(variant):
    config = imagenet_resnet50.get_config(variant)
    config.data.dir = "nowhere"
    return make_plan(config, make_task, jax.devices()[:1], need_data=False)


@pytest.mark.parametrize("variant", methods.VARIANTS)
def test_every_variant_builds_with_the_papers_schedules(variant):
    plan = plan_of(variant)
    parameters = sum(math.prod(x.shape) for x in jax.tree.leaves(plan.network.params))
    assert parameters == 25_557_032

    epochs = 290 if variant == "dropblock_label_smoothing" else 270
    assert (plan.steps_per_epoch, plan.total_steps) == (1251, 1251 * epochs)
    stretch = epochs / 270
    rates = {5: 0.4, 124: 0.4, 126: 0.04, 199: 0.04, 201: 0.004, 249: 0.004, 251: 0.0004}
    for epoch, rate in rates.items():
        step = round(1251 * epoch * (stretch if epoch > 5 else 1))
        assert plan.learning_rate_schedule(step) == pytest.approx(rate, rel=1e-6), f"epoch {epoch}"
    assert plan.learning_rate_schedule(1251) == pytest.approx(0.08)  # one of five epochs of warm-up

    kind, target, _ = DROPS.get(variant, ("none", 1.0, None))
    keep_probs = [float(plan.keep_prob_schedule(plan.total_steps * part)) for part in (0, 0.5, 1)]
    assert keep_probs == pytest.approx([1, (1 + target) / 2, target], abs=1e-6)
    assert plan.task.drop.kind == kind


@pytest.mark.parametrize("variant", DROPS)
def test_the_sites_that_act(variant):
    task = plan_of(variant).task
    model = nnx.eval_shape(lambda: task.make_model("cpu", nnx.Rngs(0)))
    blocks = [block for group in model.groups.values() for block in group.values()]
    sites = [site for block in blocks for site in (block.skip_site, *block.conv_sites) if site]
    names = [site.name for site in sites]
    counts = [sum(name.startswith(f"group{group}.") for name in names) for group in (1, 2, 3, 4)]
    assert counts == DROPS[variant][2]
    factors = {site.name.split(".")[0]: site.factor for site in sites}
    all_factors = {"group1": 1 / 64, "group2": 1 / 16, "group3": 1 / 4, "group4": 1}
    assert factors == {group: all_factors[group] for group in factors}
    ends = {name.rsplit(".", 1)[1] for name in names}
    assert (
        ends
        == {
            "dropblock": {"conv1", "conv2", "conv3", "skip"},
            "dropout": {"conv1", "conv2", "conv3"},
            "spatial_dropout": {"conv1", "conv2", "conv3"},
            "drop_path": {"conv3"},
        }[task.drop.kind]
    )


def test_dry_run_prints_the_papers_numbers(capsys):
    config = imagenet_resnet50.get_config("dropblock")
    config.data.dir = "nowhere"
    dry_run(config, make_task, jax.devices()[:1])
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


@pytest.mark.slow
@pytest.mark.parametrize("variant", methods.VARIANTS)
def test_every_variant_passes_a_dry_run(variant, capsys):
    config = imagenet_resnet50.get_config(variant)
    config.data.dir = "nowhere"
    dry_run(config, make_task, jax.devices()[:1])
    assert "FLOPs of a training step" in capsys.readouterr().out
