"""A trained classifier's ResNet as the backbone of another network."""

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from training import config as config_lib
from training.checkpoints import Checkpoints
from training.config import ConfigError
from training.plan import Plan, make_plan
from training.state import variables

# What decides whether parameters of one name mean the same.
_FIELDS = ("model.depth", "model.width_multiplier", "model.stem", "model.stem_stride")


def load_backbone(plan: Plan, make_task: Callable, mesh) -> dict[str, Any]:
    """Parameters and BN statistics of the classifier that `config.pretrained` names.

    Its best checkpoint, or the latest if none was evaluated; of its moving average, if it has one.

    Args:
      plan: of the network that has a backbone.
      make_task: see `tasks`.
      mesh: the devices.

    Returns:
      `params` and `batch_stats`, of the names and shapes that the plan's `backbone` has.

    Raises:
      ConfigError: there is no such run, or its network is another.
    """
    folder = pathlib.Path(plan.config.pretrained).expanduser()
    whole = (folder / "checkpoints").is_dir()
    directory = folder / "checkpoints" if whole else folder
    if not (directory / "config.json").exists():
        raise ConfigError(
            f"pretrained is {folder}, which is neither the workdir of a training run nor its "
            "checkpoints folder: train a classifier first, or name another by --config.pretrained"
        )
    config = config_lib.from_json(directory / "config.json")
    _check_same(config, plan.config, folder)
    source = make_plan(config, functools.partial(make_task, train=False, evaluate=False))
    metric = source.task.best_metric
    with Checkpoints(directory, keep=None, best_metric=metric) as checkpoints:
        state = checkpoints.restore(source.abstract_state(mesh), step=checkpoints.best)
    if state is None:
        raise ConfigError(f"pretrained is {folder}, where no checkpoint has been saved")
    trained = variables(state)
    wanted = _backbone(plan.abstract_state(mesh))
    found = {
        name: {part: trained[name][part] for part in wanted[name] if part in trained[name]}
        for name in wanted
    }
    if jax.tree.map(jnp.shape, found) != jax.tree.map(jnp.shape, wanted):
        raise ConfigError(f"the network of {folder} has other parameters than this backbone")
    return found


def with_backbone(state: dict, backbone: dict[str, Any]) -> dict:
    """A new run's state that starts from `load_backbone`'s arrays."""
    new = {name: state[name] | {"backbone": backbone[name]} for name in backbone}
    if "ema" in state:
        # A copy: two names of one buffer could not both be donated.
        new["ema"] = jax.tree.map(jnp.copy, new)
    return state | new


def _backbone(state: dict) -> dict[str, Any]:
    if "backbone" not in state["params"]:
        raise ConfigError("pretrained is set, but this network has no backbone to load")
    return {name: state[name]["backbone"] for name in ("params", "batch_stats")}


def _check_same(theirs, ours, folder):
    if theirs.task != "classification" or theirs.model.name != "resnet":
        raise ConfigError(
            f"{folder} holds a run of {theirs.task} with a {theirs.model.name}: a backbone is "
            "loaded from classification with a resnet"
        )
    was, now = config_lib.flat(theirs.to_dict()), config_lib.flat(ours.to_dict())
    changes = [
        f"{field} is {was[field]!r} there, {now[field]!r} here"
        for field in (*_FIELDS, "data.channels")
        if was[field] != now[field]
    ]
    if changes:
        raise ConfigError(f"{folder} holds another network ({'; '.join(changes)})")
