"""What a run starts from: every array in its place, and what is said when it does not fit."""

import jax
import numpy as np
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict

import random_runs
import tiny
import tiny_detection
import tiny_segmentation
import torch_resnet
from configs import cifar10_amoebanet
from inputs.images import DataError
from tasks import make_task
from training import config as config_lib
from training import init_from
from training.checkpoints import Checkpoints
from training.config import ConfigError
from training.dry_run import dry_run
from training.files import write
from training.plan import make_plan
from weights import files

PLANS = {}


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("classifier")
    return workdir, tiny_detection.save_classifier(workdir)


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detector")
    return folder, random_runs.save(tiny_detection.get_config(), folder)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """PyTorch's of the network of tests/tiny.py, and the file."""
    arrays = torch_resnet.random_weights(10, classes=10, width=4, channels=1, stem=3)
    path = tmp_path_factory.mktemp("weights") / "r10.safetensors"
    files.save(path, arrays)
    return path, arrays


def plan_of(path, module=tiny, devices=1, init_part=None, **fields):
    config = module.get_config()
    config.init_from = str(path)
    config.update_from_flattened_dict({k.replace("__", "."): x for k, x in fields.items()})
    init_from.settle(config)
    # A plan follows from all else, and is the same for all tests.
    key = devices, config_lib.to_json(config).replace(str(path), "")
    if key not in PLANS:
        PLANS[key] = make_plan(config, make_task, jax.devices()[:devices])
    PLANS[key].config.update(init_from=str(path), init_part=init_part)
    return PLANS[key]


def load(path, module=tiny, **fields):
    return init_from.load(plan_of(path, module, **fields), make_task)


def flat(state):
    return flatten_dict({name: state[name] for name in ("params", "batch_stats")})


def check(found, expected):
    assert found.keys() == expected.keys()
    for path, array in expected.items():
        np.testing.assert_array_equal(found[path], array, err_msg=str(path))


def zeros(plan):
    return jax.tree.map(
        lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding), plan.abstract_state
    )


def trained(state, *, head=True, under=None):
    """A run's average by path, without its head or under another name."""
    return {
        path if under is None else (path[0], under, *path[1:]): x
        for path, x in flat(state["ema"]).items()
        if head or path[1] != "head"
    }


# --- Runs of our own.


def test_the_backbone_is_the_classifiers_average(classifier):
    workdir, state = classifier
    plan = plan_of(workdir, tiny_detection)
    start = init_from.load(plan, make_task)
    expected = trained(state, head=False, under="backbone")
    check(start.arrays, expected)
    assert start.text == (
        f"init_from: {len(expected)} of {len(flat(plan.abstract_state))} arrays from step 12 of "
        f"{workdir}; new: box_head, class_head, fpn; data.mean was (0.13,) there and is (0.1,) "
        "here; data.std was (0.31,) there and is (0.27,) here"
    )
    loaded = init_from.start_from(zeros(plan), start)
    assert jax.tree.map(np.shape, loaded) == jax.tree.map(np.shape, plan.abstract_state)
    for of in (loaded, loaded["ema"]):  # what trains, and its average
        found = flat(of)
        check({path: x for path, x in found.items() if path[1] == "backbone"}, expected)
        others = [x for path, x in found.items() if path[1] != "backbone"]
        assert others and not any(map(np.any, others))
    assert not any(map(np.any, jax.tree.leaves(loaded["opt_state"])))


@pytest.mark.parametrize("devices", [1, 8])
def test_arrays_go_where_the_state_is(classifier, weights, devices):
    for path in (classifier[0], weights[0]):
        plan = plan_of(path, devices=devices, batch_size=16)
        loaded = init_from.start_from(zeros(plan), init_from.load(plan, make_task))
        assert jax.tree.map(lambda x: x.sharding, loaded) == plan.state_sharding
        pointers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(loaded) if devices == 1]
        assert len(set(pointers)) == len(pointers)  # each is donated to the first step


def test_checkpoints_alone_will_do_without_the_data_and_an_evaluation(classifier, tmp_path):
    workdir, state = classifier
    config = config_lib.from_json(workdir / "checkpoints" / "config.json")
    config.data.name = "nowhere"
    write(tmp_path / "config.json", config_lib.to_json(config))
    with Checkpoints(tmp_path, keep=1, best_metric="top1") as checkpoints:
        checkpoints.save(3, state, None)
    check(load(tmp_path, tiny_detection).arrays, trained(state, head=False, under="backbone"))


@pytest.mark.parametrize(
    ("names", "part", "head"),
    [
        ("0123456789", None, True),
        ("0123456789", "all", True),
        ("0123456789", "backbone", False),
        ("abcdefghij", None, False),  # as many, but others
    ],
)
def test_a_classifier_of_a_classifier(classifier, tmp_path, names, part, head):
    workdir, state = classifier
    config = config_lib.from_json(workdir / "checkpoints" / "config.json")
    config.data.class_names = list(names)
    write(tmp_path / "config.json", config_lib.to_json(config))
    with Checkpoints(tmp_path, keep=1, best_metric="top1") as checkpoints:
        checkpoints.save(3, state, None)
    start = load(tmp_path, init_part=part)
    check(start.arrays, trained(state, head=head))
    assert start.text.endswith(f"from step 12 of {tmp_path}" + ("" if head else "; new: head"))


def test_a_detector_of_a_detector(detector, tmp_path):
    folder, state = detector
    expected = flat(state["ema"])
    check(load(folder, tiny_detection).arrays, expected)
    config = config_lib.from_json(folder / "config.json")
    config.data.class_names = [f"{name}s" for name in config.data.class_names]
    write(tmp_path / "config.json", config_lib.to_json(config))
    with Checkpoints(tmp_path, keep=1, best_metric="AP") as checkpoints:
        checkpoints.save(0, state, None)
    start = load(tmp_path, tiny_detection)
    check(start.arrays, {k: x for k, x in expected.items() if k[1:3] != ("class_head", "output")})
    assert start.text.endswith("; new: class_head/output")


def test_the_backbone_of_another_pyramid_and_of_ones_own(detector):
    folder, state = detector
    backbone = {path: x for path, x in flat(state["ema"]).items() if path[1] == "backbone"}
    fields = {"model__stem_stride": 2, "model__min_level": 2, "model__max_level": 4}
    check(load(folder, tiny_segmentation, **fields).arrays, backbone)
    # Of another pyramid of the same kind, too.
    fields = {"model__fpn_channels": 4, "init_part": "backbone"}
    check(load(folder, tiny_detection, **fields).arrays, backbone)
    head = {(path[0], *path[2:]): x for path, x in backbone.items()}
    check(load(folder).arrays, head)


def test_every_array_that_is_another_is_named(detector):
    folder, state = detector
    fields = {"model__max_level": 5, "data__image_size": 64, "model__head_channels": 4}
    with pytest.raises(ConfigError) as caught:
        load(folder, tiny_detection, **fields)
    text = str(caught.value)
    new = plan_of(folder, tiny_detection, **fields)
    was, now = ({path: x.shape for path, x in flat(x).items()} for x in (state, new.abstract_state))
    for path in was.keys() | now.keys():
        shape = [list(x[path]) if path in x else "not" for x in (was, now)]
        listed = f"{'/'.join(map(str, path))} is {shape[0]} there, {shape[1]} here"
        assert (listed in text) == (shape[0] != shape[1])
    assert "params/fpn/norms/p5/scale is not there, [8] here" in text
    assert text.endswith("its backbone alone is taken by init_part 'backbone'")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"model__depth": 18, "model__width_multiplier": 0.25},
            "model.depth is 10 there, 18 here; model.width_multiplier is 0.0625 there, 0.25 here",
        ),
        ({"model__stem_stride": 1}, "model.stem_stride is 2 there, 1 here"),
        ({"model__convention": "pytorch"}, "convention is 'tensorflow' there, 'pytorch' here"),
        ({"init_part": "all"}, "another kind of network than retinanet.*leave init_part open"),
        ({"init_part": "head"}, "init_part must be one of all, backbone, got 'head'"),
    ],
)
def test_another_network_is_named(classifier, fields, message):
    fields |= {"model__min_level": 3, "model__max_level": 4}
    with pytest.raises(ConfigError, match=message):
        load(classifier[0], tiny_detection, **fields)


def test_what_was_open_is_the_papers_convention(classifier, tmp_path):
    config = config_lib.from_json(classifier[0] / "checkpoints" / "config.json")
    del config.model.convention  # of before there was the field
    write(tmp_path / "config.json", config_lib.to_json(config))
    with Checkpoints(tmp_path, keep=1, best_metric="top1") as checkpoints:
        checkpoints.save(3, classifier[1], None)
    check(load(tmp_path, model__convention="tensorflow").arrays, trained(classifier[1]))


def test_what_is_no_run_is_named(classifier, tmp_path):
    with pytest.raises(
        ConfigError, match="nowhere, which is neither the workdir of a training run"
    ):
        load(tmp_path / "nowhere", tiny_detection)
    write(tmp_path / "config.json", config_lib.to_json(cifar10_amoebanet.get_config()))
    with pytest.raises(ConfigError, match="a run with a amoebanet, this network is a resnet"):
        load(tmp_path, tiny_detection)
    text = (classifier[0] / "checkpoints" / "config.json").read_text()
    write(tmp_path / "config.json", text)
    with pytest.raises(ConfigError, match="there is no checkpoint in"):
        load(tmp_path, tiny_detection)


# --- PyTorch's weights.


def test_pytorchs_arrays_have_their_places(weights):
    path, arrays = weights
    start = load(path)
    paths = flat(plan_of(path).abstract_state).keys()
    assert start.arrays.keys() == paths
    assert start.text == f"init_from: {len(paths)} of {len(paths)} arrays from {path}, " + (
        "PyTorch's ResNet-10; data.mean was (0.485, 0.456, 0.406) there and is (0.13,) here; "
        "data.std was (0.229, 0.224, 0.225) there and is (0.31,) here"
    )
    for place, name, axes in (
        (("params", "stem", "conv", "kernel"), "conv1.weight", (2, 3, 1, 0)),
        (("batch_stats", "stem", "norm", "var"), "bn1.running_var", (0,)),
        (("params", "head", "kernel"), "fc.weight", (1, 0)),
    ):
        np.testing.assert_array_equal(start.arrays[place], arrays[name].transpose(axes))


@pytest.mark.parametrize(
    ("fields", "classes"), [({"init_part": "backbone"}, 10), ({}, 3), ({}, None)]
)
def test_a_new_head(weights, tmp_path, fields, classes):
    arrays = weights[1] | {"fc.bias": np.zeros(classes or 1, np.float32)}
    if classes is None:  # as timm's networks without a head
        arrays = {name: x for name, x in arrays.items() if not name.startswith("fc.")}
    path = tmp_path / "w.npz"
    files.save(path, arrays)
    start = load(path, **fields)
    everything = load(weights[0]).arrays
    check(start.arrays, {k: x for k, x in everything.items() if k[1] != "head"})
    assert "; new: head" in start.text


def test_a_pyramid_takes_the_backbone(weights):
    path, _ = weights
    expected = {
        (k[0], "backbone", *k[1:]): x for k, x in load(path).arrays.items() if k[1] != "head"
    }
    for module, fields in (
        (tiny_detection, {}),
        (
            tiny_segmentation,
            {"model__stem_stride": 2, "model__min_level": 2, "model__max_level": 4},
        ),
    ):
        plan = plan_of(path, module, **fields)
        assert plan.config.model.convention == "pytorch"
        start = init_from.load(plan, make_task)
        check(start.arrays, expected)
        model = nnx.eval_shape(lambda: plan.task.make_model("cpu", nnx.Rngs(0)))  # noqa: B023
        norms = [(p, m) for p, m in nnx.iter_modules(model) if isinstance(m, nnx.BatchNorm)]
        assert {(p[0] == "backbone", m.epsilon) for p, m in norms} == {(True, 1e-5), (False, 1e-4)}
        assert "PyTorch's ResNet-10; new: " in start.text and "fpn" in start.text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model__depth": 18}, r"safetensors holds a ResNet-10, where model.depth is 18"),
        ({"model__convention": "tensorflow"}, "convention is 'tensorflow'.*leave it open"),
        ({"model__width_multiplier": 1 / 8}, r"conv1.weight is \[4, 1, 3, 3\], not \[8, 1, 3, 3\]"),
        (
            {"data__channels": 3, "data__mean": (0.1,) * 3, "data__std": (1.0,) * 3},
            "conv1.weight is",
        ),
    ],
)
def test_weights_of_another_resnet_are_named(weights, fields, message, monkeypatch):
    monkeypatch.setattr(tiny_task(), "check_example", lambda *_, **__: None)
    with pytest.raises(ValueError, match=message) as caught:
        load(weights[0], **fields)
    assert isinstance(caught.value, (ConfigError, DataError))
    assert "r10.safetensors" in str(caught.value)


def tiny_task():
    from tasks.classification import Classification

    return Classification


def test_weights_of_another_network_are_named(weights, tmp_path):
    path = tmp_path / "vit.npz"
    files.save(path, {"cls_token": np.zeros(3), "blocks.0.attn": np.zeros(3)})
    with pytest.raises(DataError, match=r"vit.npz holds no ResNet .* but blocks.0.attn, cls_token"):
        load(path)
    with pytest.raises(ConfigError, match="w.pth, a pickle.* python -m weights.convert .*w.pth "):
        load(tmp_path / "w.pth")
    with pytest.raises(DataError, match=r"no.npz is not there"):
        load(tmp_path / "no.npz")
    (tmp_path / "bad.npz").write_bytes(weights[0].read_bytes()[:1000])
    with pytest.raises(DataError, match=r"bad.npz is damaged"):
        load(tmp_path / "bad.npz")


def test_amoebanets_take_none(weights):
    config = cifar10_amoebanet.get_config()
    config.init_from = str(weights[0])
    config.data.update(name="nowhere", num_classes=10)
    config.model.update(cells_per_stack=1, filters=4)
    init_from.settle(config)
    plan = make_plan(config, make_task, jax.devices()[:1], need_data=False)
    with pytest.raises(ConfigError, match="PyTorch's weights can be those of ResNets only"):
        init_from.load(plan, make_task)


# --- What the config says.


def test_the_convention_follows_from_the_weights():
    for name, given, expected in (
        ("w.safetensors", None, "pytorch"),
        ("w.npz", None, "pytorch"),
        ("runs/w", None, None),
        (None, None, None),
        ("w.npz", "tensorflow", "tensorflow"),
    ):
        config = tiny.get_config()
        config.init_from, config.model.convention = name, given
        init_from.settle(config)
        assert config.model.convention == expected


def test_the_old_name_is_refused():
    config = tiny.get_config()
    config.pretrained = "runs/x"
    with pytest.raises(ConfigError, match="config.pretrained is called config.init_from now"):
        init_from.settle(config)
    with pytest.raises(ConfigError, match="^config.pretrained is called config.init_from now$"):
        config_lib.from_words(["--config=tests/tiny.py", "--config.pretrained=runs/x"])


def test_a_dry_run_looks_at_it(weights, tmp_path, capsys):
    config = tiny.get_config()
    config.init_from = str(tmp_path / "no.npz")
    with pytest.raises(DataError, match=r"no.npz is not there"):
        dry_run(config, make_task, jax.devices()[:1])
    assert "keep_prob:" in capsys.readouterr().out  # all that is quickly told is told before
    config.init_from = str(weights[0])
    dry_run(config, make_task, jax.devices()[:1])
    assert f"\ninit_from: 62 of 62 arrays from {weights[0]}, PyTorch's" in capsys.readouterr().out
