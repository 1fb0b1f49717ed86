"""A trained classifier as the backbone of another network."""

import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath

from training import config as config_lib
from training.config import ConfigError
from training.plan import Plan, make_plan
from training.state import variables


def load_backbone(plan: Plan, make_task: Callable) -> dict[str, Any]:
    """Parameters and BN statistics of the classifier that `config.pretrained` names.

    Its best checkpoint, or the latest if none was evaluated; of its moving average, if it has one.

    Args:
      plan: of the network that has a backbone.
      make_task: see `tasks`.

    Returns:
      `params` and `batch_stats`, of the names and shapes that the plan's `backbone` has.

    Raises:
      ConfigError: there is no such run, or its network is another.
    """
    folder = epath.Path(plan.config.pretrained).expanduser()
    whole = (folder / "checkpoints").is_dir()
    directory = folder / "checkpoints" if whole else folder
    if not (directory / "config.json").exists():
        raise ConfigError(
            f"pretrained is {folder}, which is neither the workdir of a training run nor its "
            "checkpoints folder: train a classifier first, or name another by --config.pretrained"
        )
    if "backbone" not in plan.config.model:
        raise ConfigError("pretrained is set, but this network has no backbone to load")
    config = config_lib.from_json(directory / "config.json")
    _check_same(config, plan, folder)
    config.shard_state = plan.config.get("shard_state", False)  # loaded as the state is cut
    devices = plan.mesh.devices.flat
    source = make_plan(config, make_task, devices, train=False, evaluate=False)
    trained = variables(source.restore(directory, "best", or_latest=True))
    state = plan.abstract_state
    # A backbone whose normalisation has no running statistics has none among the batch's.
    wanted = {name: state[name].get("backbone", {}) for name in ("params", "batch_stats")}
    found = {
        name: {part: trained[name][part] for part in wanted[name] if part in trained[name]}
        for name in wanted
    }
    if jax.tree.map(jnp.shape, found) != jax.tree.map(jnp.shape, wanted):
        raise ConfigError(f"the network of {folder} has other parameters than this backbone")
    return found


def with_backbone(state: dict, backbone: dict[str, Any]) -> dict:
    """A new run's state that starts from `load_backbone`'s arrays."""
    new = {
        name: {part: backbone[name] if part == "backbone" else x for part, x in state[name].items()}
        for name in backbone
    }
    if "ema" in state:
        # A copy: two names of one buffer could not both be donated.
        new["ema"] = jax.tree.map(jnp.copy, new)
    return state | new


def _check_same(theirs, plan: Plan, folder):
    """Raises ConfigError where parameters of one name would mean something else."""
    name = plan.config.model.backbone
    if theirs.task != "classification" or theirs.model.name != name:
        raise ConfigError(
            f"{folder} holds a run of {theirs.task} with a {theirs.model.name}: a backbone is "
            f"loaded from classification with a {name}"
        )
    # As JSON has them: theirs was read from it, so that its tuples are lists.
    was, now = (
        config_lib.flat(json.loads(config_lib.to_json(config))) for config in (theirs, plan.config)
    )
    fields = [f"model.{field}" for field in plan.task.backbone.fields]
    changes = [
        f"{field} is {was.get(field)!r} there, {now.get(field)!r} here"
        for field in (*fields, "data.channels")
        if was.get(field) != now.get(field)
    ]
    if changes:
        raise ConfigError(f"{folder} holds another network ({'; '.join(changes)})")
