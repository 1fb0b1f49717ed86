"""What a config may not say."""

import jax
import pytest

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
