"""The program is the one for the devices it is given, not for the machine it is traced on."""

import collections
import re

import jax
import pytest

from configs import imagenet_resnet50
from tasks import make_task
from training import sharding
from training.plan import make_plan


def lowered(platform, depth=50):
    """The training step of a thin ResNet with DropBlock, as StableHLO for a platform."""
    config = imagenet_resnet50.get_config("dropblock")
    config.batch_size, config.model.width_multiplier, config.model.depth = 16, 1 / 16, depth
    plan = make_plan(config, make_task, jax.devices()[:1], need_data=False)
    assert plan.platform == platform
    traced = plan.train_step.trace(plan.abstract_state, plan.abstract_batch, plan.abstract_key)
    return traced.lower(lowering_platforms=(platform,)).as_text()


def count(text):
    """How often each operation stands in it."""
    return collections.Counter(re.findall(r"stablehlo\.(\w+)", text))


@pytest.fixture
def on_tpu(monkeypatch):
    """Devices that say they are TPUs: those of a topology do, which needs libtpu."""
    monkeypatch.setattr(sharding, "platform", lambda mesh: "tpu")


def test_a_step_for_a_tpu_is_the_same_wherever_it_is_traced(on_tpu, monkeypatch):
    here = lowered("tpu")
    found = count(here)
    # 53 convolutions forward, and 52 gradients of their inputs and 53 of their kernels.
    assert found["convolution"] == 3 * 53 - 1
    # Pooling is XLA's own: one window forward, and one to scatter through.
    assert found["select_and_scatter"] == 1
    # As on a TPU, where jax says that it is one.
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    jax.clear_caches()
    assert lowered("tpu") == here


def test_a_step_for_a_cpu_has_the_forms_that_are_quick_there():
    found = count(lowered("cpu", depth=10))
    # Of 12 convolutions the three that project are 1x1, which are products there.
    assert found["convolution"] == 3 * 9 - 1 and found["select_and_scatter"] == 0
