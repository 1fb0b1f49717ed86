"""Every config builds, says how it is run, and has every method; test_imagenet.py has numbers."""

import pathlib
import re

import jax
import pytest
from ml_collections import config_flags  # noqa: F401, registers the parsers of tuples

from configs import (
    cifar10_1000_resnet,
    cifar10_resnet,
    defaults,
    fashion_mnist_1000_resnet,
    fashion_mnist_resnet,
    image_folder_resnet,
    imagenet_resnet50,
    methods,
    mnist_resnet,
)
from tasks import make_task
from training.config import flat
from training.plan import make_plan

FAMILIES = [
    cifar10_1000_resnet,
    cifar10_resnet,
    fashion_mnist_1000_resnet,
    fashion_mnist_resnet,
    image_folder_resnet,
    imagenet_resnet50,
    mnist_resnet,
]


@pytest.mark.parametrize("variant", methods.VARIANTS)
def test_every_variant_of_small_images_builds(variant):
    plan = make_plan(mnist_resnet.get_config(variant), make_task, jax.devices()[:1])
    drops = variant.startswith("drop") or variant == "spatial_dropout"
    assert (plan.task.drop.kind != "none") == drops
    epochs = mnist_resnet.get_config("baseline").epochs  # of 40 steps
    longer = 290 / 270 if variant == "dropblock_label_smoothing" else 1
    assert plan.total_steps == round(40 * epochs * longer)


@pytest.mark.parametrize("family", [f for f in FAMILIES if f is not imagenet_resnet50])
@pytest.mark.parametrize("variant", ["baseline", "dropblock"])
def test_every_config_builds(family, variant):
    config = family.get_config(variant)
    if family is image_folder_resnet:
        config.update_from_flattened_dict(
            {"data.num_classes": 7, "data.num_train_examples": 500, "data.num_eval_examples": 90}
        )
    plan = make_plan(config, make_task, jax.devices()[:1], need_data=False)
    assert plan.total_steps > 0
    assert (plan.task.drop.kind != "none") == (variant == "dropblock")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_every_method(family):
    """A method changes the same fields everywhere; AutoAugment's policy is that of the images."""
    was = flat(family.get_config("baseline").to_dict())
    for variant, fields in methods.VARIANTS.items():
        now = flat(family.get_config(variant).to_dict())
        changed = {name: value for name, value in now.items() if value != was[name]}
        expected = {name: value for name, value in fields.items() if value != was[name]}
        if variant == "autoaugment":
            small = was["data.image_size"] < 64
            expected = {"data.autoaugment": "cifar" if small else "imagenet"}
        if variant == "dropblock_label_smoothing":
            assert changed.pop("epochs") == pytest.approx(was["epochs"] * 290 / 270)
            boundaries = changed.pop("schedule.boundaries")
            assert boundaries == pytest.approx([e * 290 / 270 for e in was["schedule.boundaries"]])
        assert changed == expected, variant


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
    with pytest.raises(ValueError, match="no variant 'dropblok'.*baseline, dropout, .*dropblock"):
        mnist_resnet.get_config("dropblok")
