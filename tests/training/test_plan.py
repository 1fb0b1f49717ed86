"""What a config may not say, and what follows from it on its devices."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from flax import nnx

import tiny
from tasks import make_task
from training.config import ConfigError
from training.plan import make_plan
from training.state import variables


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("log_every_steps", 0),
        ("checkpoint_every_steps", -1),
        ("eval_every_epochs", 0.0),
        ("keep_checkpoints", 0),
        ("seed", -1),
        ("ema_decay", 1.0),
        ("drop.keep_prob", 1.5),
        ("drop.schedule", "cosine"),
    ],
)
def test_wrong_fields_are_named(field, value):
    config = tiny.get_config()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(ConfigError, match=f"{field}.* got '?{value}"):
        make_plan(config, make_task, jax.devices()[:1])


def test_settings_that_are_seldom_meant_are_told():
    config = tiny.get_config()  # 64 examples, 12 steps of which 4 warm up
    assert make_plan(config, make_task, jax.devices()[:1]).quiet_settings == []
    config.schedule.warmup_epochs, config.data.num_classes = 1.25, 7
    warmup, classes = make_plan(config, make_task, jax.devices()[:1]).quiet_settings
    assert warmup.startswith("the learning rate rises for 5 of 12 steps: set config.schedule.war")
    assert classes.startswith("config.data.num_classes is 7, and the data has 10 classes")
    config.batch_size, config.schedule.warmup_epochs, config.data.num_classes = 65, 0.0, 10
    (batch,) = make_plan(config, make_task, jax.devices()[:1]).quiet_settings
    assert batch.startswith("a batch of 65 is larger than the training set of 64, ")


def test_groups_have_to_fill_a_batch():
    config = tiny.get_config()  # 16 examples
    for group in (-1, 3):
        config.model.bn_group_size = group
        with pytest.raises(
            ConfigError, match=f"size {group} does not divide the 16 examples of a b"
        ):
            make_plan(config, make_task, jax.devices()[:1])
    config.model.bn_group_size = 8
    make_plan(config, make_task, jax.devices()[:1])
    config.accumulate, config.model.bn_group_size = 4, 3
    with pytest.raises(ConfigError, match="size 3 does not divide the 4 examples of a micro-batch"):
        make_plan(config, make_task, jax.devices()[:1])
    config.model.bn_group_size = 8  # a micro-batch has fewer
    make_plan(config, make_task, jax.devices()[:1])


@pytest.mark.parametrize(
    "name", ["mnist_resnet", "cifar10_amoebanet", "scenes_retinanet", "scenes_fcn"]
)
def test_every_network_has_the_groups_of_its_config(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    config.model.bn_group_size = 4
    assert group_sizes(config) == {4}


def test_a_run_that_was_begun_before_there_were_groups_has_none():
    config = tiny.get_config()
    del config.model.bn_group_size
    make_plan(config, make_task, jax.devices()[:1])
    assert group_sizes(config) == {0}


def group_sizes(config):
    """Those of the BatchNorms of a config's network."""
    task = make_task(config, train=True, evaluate=False, need_data=False)
    model = nnx.eval_shape(lambda: task.make_model("cpu", nnx.Rngs(params=0)))
    modules = [module for _, module in nnx.iter_modules(model)]
    return {module.group_size for module in modules if isinstance(module, nnx.BatchNorm)}


def test_the_papers_groups_are_a_cores():
    # docs/paper.md section 8.1: the batch of the authors' flags on their 8 cores.
    cores = {
        "imagenet_resnet50": 1024 / 8,
        "imagenet_amoebanet_b": 256 / 8,
        "coco_retinanet": 64 / 8,
        "voc_fcn": 64 / 8,
    }
    for name, examples in cores.items():
        config = importlib.import_module(f"configs.{name}").get_config()
        assert config.model.bn_group_size == examples


def test_masks_follow_from_the_config_whatever_jax_is_set_to():
    config = tiny.get_config()
    config.seed = 5
    expected = jax.random.key(5, impl="threefry2x32")
    with jax.default_prng_impl("rbg"):
        plan = make_plan(config, make_task, jax.devices())
        assert plan.key.dtype == expected.dtype
    assert (jax.random.key_data(plan.key) == jax.random.key_data(expected)).all()
    # On the mesh, as all that a step is given: a key elsewhere would be moved at each step.
    assert plan.key.sharding.is_equivalent_to(plan.abstract_key.sharding, ndim=0)
    assert len(plan.key.sharding.device_set) == 8


def test_a_batch_for_evaluation_is_one_that_the_devices_divide():
    config = tiny.get_config()
    config.batch_size = 12
    with pytest.raises(ConfigError, match="12 cannot be divided over 8 devices"):
        make_plan(config, make_task, jax.devices())
    assert make_plan(config, make_task, jax.devices(), train=False).batch_size == 16


@pytest.fixture(scope="module")
def plan():
    """Of 64 images in batches of 16, for 3 epochs."""
    return make_plan(tiny.get_config(), make_task, jax.devices()[:1])


def test_a_plan_is_of_all_the_data_and_checks_it(plan):
    assert (plan.task.num_train, plan.task.num_eval) == (64, 50)
    assert (plan.steps_per_epoch, plan.total_steps, plan.batch_size) == (4, 12, 16)
    assert plan.platform == "cpu"
    config = tiny.get_config()
    config.data.name = "nowhere"
    with pytest.raises(ConfigError, match="nowhere"):
        make_plan(config, make_task, jax.devices())


@pytest.mark.parametrize(("epochs", "steps"), [(1.5, 6), (0.25, 1), (0.01, 1)])
def test_evaluations_are_whole_steps_apart(epochs, steps):
    config = tiny.get_config()
    config.eval_every_epochs, config.ema_decay = epochs, 0.0
    assert make_plan(config, make_task, jax.devices()[:1]).eval_every == steps


def test_keep_prob_is_the_configs_at_the_end_and_1_where_nothing_drops(plan):
    assert float(plan.keep_prob_schedule(12)) == pytest.approx(plan.config.drop.keep_prob)
    assert plan.config.drop.keep_prob < 1
    none = make_plan(tiny.get_config("baseline"), make_task, jax.devices()[:1])
    assert none.task.drop.kind == "none" and float(none.keep_prob_schedule(12)) == 1.0


def test_a_step_takes_the_state_and_leaves_the_batch_and_the_key(plan):
    (state, *others), _ = plan.lower_train_step().args_info
    assert all(leaf.donated for leaf in jax.tree.leaves(state))
    assert not any(leaf.donated for leaf in jax.tree.leaves(others))


@pytest.mark.parametrize(("options", "sites"), [({}, 0), ({"drop": True}, 6)])
def test_an_evaluation_drops_only_where_it_is_asked_to(plan, options, sites):
    batch = plan.abstract_batch | {
        name: jax.ShapeDtypeStruct((16,), dtype)
        for name, dtype in (("mask", bool), ("skipped", jnp.int32))
    }
    arguments = (variables(plan.abstract_state), batch, plan.abstract_key, 0.5)
    sums, _ = plan.eval_step(**options).eval_shape(*arguments)
    assert len(sums["sites"]) == sites


def test_a_state_is_restored_by_the_name_of_its_checkpoint(plan, tmp_path):
    def step(*names, **options):
        return int(plan.restore(tmp_path, *names, **options)["step"])

    with plan.checkpoints(tmp_path, keep=3) as checkpoints:
        start = jax.tree.map(
            lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding), plan.abstract_state
        )
        for number in (1, 2):
            checkpoints.save(number, start | {"step": start["step"] + number}, None)
    assert step() == step("latest") == step("best", or_latest=True) == 2
    assert step("1") == 1
    with pytest.raises(ConfigError, match="has been evaluated"):
        step("best")
    with plan.checkpoints(tmp_path, keep=3) as checkpoints:
        checkpoints.save(1, start | {"step": start["step"] + 1}, {"top1": 10.0})
    assert step("best") == step("best", or_latest=True) == 1 and step() == 2


def test_the_commands_define_no_flags_where_they_are_imported():
    for name in ("train", "evaluate", "predict"):
        importlib.import_module(name)
    assert not {"config", "workdir", "multihost", "checkpoint"} & set(flags.FLAGS)
