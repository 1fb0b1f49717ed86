"""What a config may not say, and what follows from it on its devices."""

import importlib

import jax
import pytest
from absl import flags

import tiny
from tasks import make_task
from training.config import ConfigError
from training.plan import make_plan


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("log_every_steps", 0),
        ("checkpoint_every_steps", -1),
        ("eval_every_epochs", 0.0),
        ("keep_checkpoints", 0),
        ("seed", -1),
        ("ema_decay", 1.0),
    ],
)
def test_wrong_fields_are_named(field, value):
    config = tiny.get_config()
    config[field] = value
    with pytest.raises(ConfigError, match=f"{field}.* got {value}"):
        make_plan(config, make_task, jax.devices()[:1])


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


def test_the_commands_define_no_flags_where_they_are_imported():
    for name in ("train", "evaluate", "predict"):
        importlib.import_module(name)
    assert not {"config", "workdir", "multihost", "checkpoint"} & set(flags.FLAGS)
