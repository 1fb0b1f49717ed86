"""What holds for every config file; the numbers of the paper's four are tested beside this."""

import importlib
import re

import jax
import pytest
from ml_collections import config_flags  # noqa: F401, registers the parsers of tuples

from configs import amoebanet, defaults, detection, methods, mnist_resnet, segmentation
from models.drop import KINDS
from processes import ROOT
from tasks import make_task
from tasks.architectures import ARCHITECTURES
from training.config import flat
from training.plan import make_plan

# Of each kind of network, by the files' names: what its configs start from, and their variants.
SHARED = {
    "resnet": (defaults, methods),
    "amoebanet": (amoebanet, amoebanet),
    "retinanet": (detection, detection),
    "fcn": (segmentation, segmentation),
}
FAMILIES = {
    path.stem: importlib.import_module(f"configs.{path.stem}")
    for path in sorted((ROOT / "configs").glob("*.py"))
    if any(f"_{network}" in path.stem for network in SHARED)
}
PAPERS = ("imagenet_resnet50", "imagenet_amoebanet_b", "coco_retinanet", "voc_fcn")


def shared_by(name):
    return next(modules for network, modules in SHARED.items() if f"_{network}" in name)


def fields_of(config):
    return flat(config.to_dict())


@pytest.mark.parametrize("variant", methods.VARIANTS)
def test_every_method_builds(variant):
    plan = make_plan(mnist_resnet.get_config(variant), make_task, jax.devices()[:1])
    kinds = [kind for kind in KINDS if variant.startswith(kind)] or ["none"]
    assert [plan.task.drop.kind] == kinds
    epochs = mnist_resnet.get_config("baseline").epochs  # of 40 steps
    longer = 290 / 270 if variant == "dropblock_label_smoothing" else 1
    assert plan.total_steps == round(40 * epochs * longer)


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        (name, variant)
        for name in sorted(FAMILIES.keys() - set(PAPERS))
        for variant in ("baseline", "dropblock", "backbone")
        if variant in shared_by(name)[1].VARIANTS
    ],
)
def test_the_fields_of_every_config_go_together(name, variant):
    """Sizes, levels and places that do not are found here, not by who starts a run."""
    config = FAMILIES[name].get_config(variant)
    if config.data.num_classes is None:  # of the user's own data
        config.data.update(num_classes=7, num_train_examples=500, num_eval_examples=90)
    plan = make_plan(config, make_task, jax.devices()[:1], need_data=False)
    assert plan.total_steps > 0
    # AmoebaNet has dropout in its head, whatever the variant.
    assert (plan.task.drop.kind != "none") == (variant not in ("baseline", "scratch"))


def _before(group):
    return f"group{int(group[1]) - 1}"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_variant_changes_the_same_fields_in_every_family(name):
    """What a family sets after its variant was chosen would make another method of it there."""
    family, (_, table) = FAMILIES[name], shared_by(name)
    was = fields_of(family.get_config("baseline"))
    for variant, fields in table.VARIANTS.items():
        if name == "imagenette_small_resnet":  # its places are those of the group before
            fields = {re.sub(r"group(\d)", _before, field): fields[field] for field in fields}
            fields.pop("drop.places.group0", None)
        now = fields_of(family.get_config(variant))
        changed = {field: value for field, value in now.items() if value != was[field]}
        expected = {field: value for field, value in fields.items() if value != was[field]}
        if variant == "autoaugment":  # the policy is that of the images
            small = was["data.image_size"] < 64
            expected = {"data.autoaugment": "cifar" if small else "imagenet"}
        if variant == "dropblock_label_smoothing":
            assert changed.pop("epochs") == pytest.approx(was["epochs"] * 290 / 270)
            boundaries = changed.pop("schedule.boundaries")
            assert boundaries == pytest.approx([e * 290 / 270 for e in was["schedule.boundaries"]])
        assert changed == expected, variant


@pytest.mark.parametrize("name", FAMILIES)
def test_no_config_adds_fields(name):
    """A config is not locked while it is written: a misspelt field would be one more."""
    base, _ = shared_by(name)
    other = fields_of(FAMILIES[name].get_config()).keys() ^ fields_of(base.get_config()).keys()
    other -= {f"model.{field}" for row in ARCHITECTURES.values() for field in row.fields}
    assert other <= {"drop.places.first_half/reduction1"}  # a place of the small AmoebaNet


@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_config_tells_its_user_to_type_is_there(name):
    """Config files begin as copies of others, and fields and variants change their names."""
    family = FAMILIES[name]
    files = re.findall(r"configs/(\w+)\.py", family.__doc__)
    assert files[0] == name and set(files) <= FAMILIES.keys()
    fields = set(re.findall(r"--config\.([\w.]*\w)", family.__doc__))
    known = set().union(*(fields_of(FAMILIES[file].get_config()) for file in files))
    assert fields <= known
    for variant in re.findall(r"(?:\s|\.py):([a-z]\w*)", family.__doc__):
        family.get_config(variant)


def test_a_misspelt_variant_names_those_there_are():
    with pytest.raises(ValueError, match="no variant 'dropblok'.*baseline, dropout, .*dropblock"):
        mnist_resnet.get_config("dropblok")
