"""A state that is cut over the devices: the same numbers, an eighth of the bytes."""

import functools
import math
import re

import jax
import numpy as np
import pytest

import tiny
import tiny_detection
import tiny_segmentation
from configs import imagenet_resnet50
from stepping import run
from tasks import make_task
from training import config as config_lib
from training import dry_run, init_from, sharding
from training.evaluation import make_evaluate
from training.plan import make_plan
from training.state import variables


@pytest.mark.parametrize(
    ("shape", "devices", "axis"),
    [
        ((512, 256), 8, 0),
        ((3, 3, 256, 512), 8, 3),
        ((3, 3, 256, 256), 8, 3),
        ((1, 1, 512, 100), 8, 2),
        ((100, 3000), 8, 1),
        ((1000, 96), 32, 1),  # the longest is not divided
        ((250, 100), 8, None),
        ((16, 2, 512), 8, 2),  # just large enough
        ((128, 127), 8, None),
        ((1024,), 8, None),
        ((), 8, None),
        ((512, 512), 1, None),
    ],
)
def test_the_longest_axis_that_is_divided_is_cut(shape, devices, axis):
    assert sharding.cut_axis(shape, devices) == axis


def test_an_eighth_of_a_large_network_is_on_each_of_eight_devices():
    config = imagenet_resnet50.get_config()
    config.shard_state, config.ema_decay = True, 0.9
    state = make_plan(config, make_task, jax.devices(), need_data=False).abstract_state
    for part in ("params", "opt_state", "ema"):
        whole, held = bytes_of(state[part])
        assert 1 / 8 < held / whole < 1.03 / 8, part


def bytes_of(state):
    """Of the whole, and of what one device has."""
    leaves = [(x, x.sharding.shard_shape(x.shape)) for x in jax.tree.leaves(state)]
    sizes = [(x.size * x.dtype.itemsize, math.prod(part) * x.dtype.itemsize) for x, part in leaves]
    return map(sum, zip(*sizes, strict=True))


# --- Small networks, of whose arrays small ones are cut too.


@pytest.fixture(autouse=True)
def small(request, monkeypatch):
    if "devices" not in request.fixturenames:
        monkeypatch.setattr(sharding, "_LEAST", 256)


CONFIGS = {
    "classification": tiny.get_config,
    "detection": tiny_detection.get_config,
    "segmentation": tiny_segmentation.get_config,
}


@functools.cache
def plan_of(task="classification", devices=8, shard=True, **fields):
    """One for all tests that want the same, so that its step is compiled once."""
    config = CONFIGS[task]()
    config.drop.schedule, config.shard_state = "constant", shard
    config.update_from_flattened_dict({name.replace("__", "."): v for name, v in fields.items()})
    return make_plan(config, make_task, jax.devices()[:devices])


@functools.cache
def trained(shard):
    return run(plan_of(shard=shard), 4)


def assert_close(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), a, b)


def assert_placed(state, plan):
    def check(x, like):
        assert x.sharding.is_equivalent_to(like, x.ndim)

    jax.tree.map(check, state, plan.state_sharding)


def test_a_run_is_the_same_with_its_state_cut():
    (state, metrics), (whole, expected) = trained(True), trained(False)
    assert_close(metrics, expected)
    assert_close(jax.device_get(state), jax.device_get(whole))
    assert metrics[-1]["sites"]["group4.block1.conv1"].dropped > 0
    assert_placed(state, plan_of())
    total, held = bytes_of(state)
    assert held / total < 1.4 / 8  # the statistics, and the first layer's 4 channels, are whole


EVERY_TASK = pytest.mark.parametrize(
    ("task", "fields"),
    [
        ("classification", {"accumulate": 2, "optimizer__clip_norm": 0.1}),
        ("detection", {}),
        ("segmentation", {}),
    ],
)


@EVERY_TASK
def test_a_parameter_that_is_cut_is_gathered_and_its_gradient_cut(task, fields):
    plan = plan_of(task, **fields)
    arguments = plan.abstract_state, plan.abstract_batch, plan.abstract_key
    text = str(plan.train_step.trace(*arguments).jaxpr)
    specs = re.findall(r"sharding_constraint\[.*?spec=P\((.*?)\)", text, re.DOTALL)
    cuts = [s for s in jax.tree.leaves(plan.state_sharding["params"]) if s.spec]
    assert len(cuts) > 5
    # A layer that several maps go through reads its parameter for each of them.
    assert specs.count("") >= len(cuts) and len(specs) == 2 * specs.count("")


@pytest.mark.slow
@EVERY_TASK
def test_a_step_of_every_task_is_the_same(task, fields):
    (state, metrics), (whole, expected) = (
        run(plan_of(task, shard=shard, **fields), 1) for shard in (True, False)
    )
    assert_close(metrics, expected)
    assert_close(jax.device_get(state), jax.device_get(whole))
    assert_placed(state, plan_of(task, **fields))


def test_the_state_stays_in_its_place():
    memory = plan_of().compiled_train_step.memory_analysis()
    _, held = bytes_of(plan_of().abstract_state)
    assert memory is not None
    assert memory.alias_size_in_bytes == held


def test_nothing_changes_on_one_device():
    texts = [
        plan_of(devices=1, shard=shard).lower_train_step().as_text() for shard in (True, False)
    ]
    assert texts[0] == texts[1]


def test_an_evaluation_is_the_same():
    results = [
        make_evaluate(plan_of(shard=shard))(
            variables(trained(True)[0] if shard else trained(False)[0])
        )
        for shard in (True, False)
    ]
    assert results[0].metrics == pytest.approx(results[1].metrics, rel=1e-5)


@pytest.mark.parametrize("shard", [True, False])
def test_a_checkpoint_is_restored_in_either_form(shard, tmp_path):
    state = trained(shard)[0]
    with plan_of(shard=shard).checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(4, state, None)
    for devices, as_shard in ((8, not shard), (8, shard), (2, True), (1, False)):
        plan = plan_of(devices=devices, shard=as_shard)
        restored = plan.restore(tmp_path)
        assert_placed(restored, plan)
        jax.tree.map(np.testing.assert_array_equal, *map(jax.device_get, (restored, state)))


def test_a_backbone_of_a_whole_state_is_cut(tmp_path):
    expected = tiny_detection.save_classifier(tmp_path)["ema"]
    plan = plan_of("detection", init_from=str(tmp_path))
    loaded = init_from.start_from(plan.create(), init_from.load(plan, make_task))
    assert_placed(loaded, plan)
    for name, parts in expected.items():
        parts = {part: x for part, x in parts.items() if part != "head"}
        jax.tree.map(np.testing.assert_array_equal, loaded[name]["backbone"], parts)


def test_a_run_goes_on_with_its_state_in_another_form(tmp_path):
    config = tiny.get_config()
    (tmp_path / "config.json").write_text(config_lib.to_json(config))
    config.shard_state = True
    config_lib.check_same(tmp_path, config)
    before = config.copy_and_resolve_references()
    del before.shard_state  # a run that was begun before there was the field
    assert not config_lib.changes(before.to_dict(), config.to_dict())
    assert make_plan(before, make_task, jax.devices()).network.mesh is None


def test_a_dry_run_tells_what_each_device_has_of_the_state(capsys):
    dry_run._print_memory(plan_of(devices=2))
    printed = capsys.readouterr().out
    for devices in (2, 8):
        _, held = bytes_of(plan_of(devices=devices).abstract_state)
        assert re.search(rf"\n  {devices} devices: [\d,]+, {held:,} of the state\n", printed)
