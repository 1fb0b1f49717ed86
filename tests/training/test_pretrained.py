"""A classifier's ResNet in a detector: every array, and what is said when it does not fit."""

import jax
import numpy as np
import pytest

import tiny
import tiny_detection
from configs import cifar10_amoebanet
from tasks import make_task
from training import config as config_lib
from training import pretrained
from training.checkpoints import Checkpoints
from training.config import ConfigError
from training.files import write
from training.plan import make_plan


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("classifier")
    return workdir, tiny_detection.save_classifier(workdir)


def load(folder, **fields):
    config = tiny_detection.get_config()
    config.update_from_flattened_dict({"pretrained": str(folder)} | fields)
    plan = make_plan(config, make_task, jax.devices()[:1])
    return plan, pretrained.load_backbone(plan, make_task)


def test_the_backbone_is_the_classifiers_average(classifier):
    workdir, state = classifier
    plan, backbone = load(workdir)
    new = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), plan.abstract_state)
    loaded = pretrained.with_backbone(new, backbone)
    assert jax.tree.map(np.shape, loaded) == jax.tree.map(np.shape, new)
    for name in ("params", "batch_stats"):
        expected = {part: x for part, x in state["ema"][name].items() if part != "head"}
        assert {"stem", "groups"} == expected.keys()
        for of in (loaded, loaded["ema"]):  # what trains, and its average
            jax.tree.map(np.testing.assert_array_equal, of[name]["backbone"], expected)
        others = {part: x for part, x in loaded[name].items() if part != "backbone"}
        assert others and not any(map(np.any, jax.tree.leaves(others)))
    assert not any(map(np.any, jax.tree.leaves(loaded["opt_state"])))


def test_checkpoints_alone_will_do_without_the_data_and_an_evaluation(classifier, tmp_path):
    workdir, state = classifier
    config = config_lib.from_json(workdir / "checkpoints" / "config.json")
    config.data.name = "nowhere"
    write(tmp_path / "config.json", config_lib.to_json(config))
    with Checkpoints(tmp_path, keep=1, best_metric="top1") as checkpoints:
        checkpoints.save(3, state, None)
    _, backbone = load(tmp_path)
    for name, found in backbone.items():
        expected = {part: x for part, x in state["ema"][name].items() if part != "head"}
        jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"model.depth": 18, "model.width_multiplier": 0.25},
            "model.depth is 10 there, 18 here; model.width_multiplier is 0.0625 there, 0.25 here",
        ),
        ({"model.stem_stride": 1}, "model.stem_stride is 2 there, 1 here"),
    ],
)
def test_another_network_is_named(classifier, fields, message):
    fields |= {"model.min_level": 3, "model.max_level": 4}
    with pytest.raises(ConfigError, match=message):
        load(classifier[0], **fields)


def test_what_is_no_classifiers_run_is_named(classifier, tmp_path):
    with pytest.raises(
        ConfigError, match="nowhere, which is neither the workdir of a training run"
    ):
        load(tmp_path / "nowhere")
    config = config_lib.to_json(tiny_detection.get_config())
    write(tmp_path / "config.json", config)
    with pytest.raises(ConfigError, match="holds a run of detection with a retinanet"):
        load(tmp_path)
    write(tmp_path / "config.json", config_lib.to_json(cifar10_amoebanet.get_config()))
    with pytest.raises(ConfigError, match="holds a run of classification with a amoebanet"):
        load(tmp_path)
    text = (classifier[0] / "checkpoints" / "config.json").read_text()
    write(tmp_path / "config.json", text)
    with pytest.raises(ConfigError, match="there is no checkpoint in"):
        load(tmp_path)


def test_a_network_without_a_backbone_is_named(classifier):
    config = tiny.get_config()
    config.pretrained = str(classifier[0])
    plan = make_plan(config, make_task, jax.devices()[:1])
    with pytest.raises(ConfigError, match="has no backbone to load"):
        pretrained.load_backbone(plan, make_task)
