"""What a run starts from where `config.init_from` names another run, or a PyTorch ResNet's weights.

Of a network of the same kind all is taken, of another its backbone, if that is the same. Layers
with an output for each class are new where the classes are others.
"""

import json
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict

from inputs.images import DataError
from inputs.splits import listed
from training import config as config_lib
from training.config import ConfigError
from training.plan import Plan, make_plan
from training.state import variables
from weights import files, resnet

PARTS = ("all", "backbone")

# Where an array is: "params" or "batch_stats", then the layers' names (or numbers), and its own.
Path = tuple[Any, ...]


class Start(NamedTuple):
    """What a new state starts from: arrays by their places in it, and a line about them."""

    arrays: dict[Path, Any]
    text: str


class _Source(NamedTuple):
    """Arrays of a trained network by their places in ours; its name; the pixels that it saw."""

    arrays: dict[Path, Any]
    name: str
    mean: Iterable[float]
    std: Iterable[float]


def settle(config: Any):
    """Sets what follows for the model from `config.init_from`, where the config leaves it open.

    Raises:
      ConfigError: the config has a field by its old name.
    """
    for old, new in config_lib.RENAMED.items():
        if old in config:
            raise ConfigError(f"config.{old} is called config.{new} now")
    if config.init_from is not None and _is_torchs(config) and "convention" in config.model:
        config.model.convention = config.model.convention or "pytorch"


def load(plan: Plan, make_task: Callable) -> Start:
    """What `config.init_from` names, as the plan's network has it.

    Args:
      plan: of a config that is settled.
      make_task: see `tasks`.

    Raises:
      ConfigError, DataError: it is not there, damaged, or of another network: all that does not fit
        is named.
    """
    config = plan.config
    if config.init_part not in (None, *PARTS):
        raise ConfigError(f"init_part must be one of {', '.join(PARTS)}, got {config.init_part!r}")
    file = pathlib.PurePath(config.init_from)
    if file.suffix in files.PICKLES:
        raise ConfigError(
            f"init_from is {file}, a pickle, which can run anything when it is read: python -m "
            f"weights.convert {file} {file.with_suffix('.safetensors')} takes the weights alone"
        )
    wanted = _flat(plan.abstract_state)
    source = _of_torch(plan, wanted) if _is_torchs(config) else _of_run(plan, wanted, make_task)
    text = f"init_from: {len(source.arrays)} of {len(wanted)} arrays from {source.name}"
    if new := wanted.keys() - source.arrays.keys():
        known = {path[1] for path in source.arrays}
        layers = {path[1] if path[1] not in known else _name(path[1:-1]) for path in new}
        text += f"; new: {', '.join(sorted(layers))}"
    for name in ("mean", "std"):
        was, now = tuple(getattr(source, name)), tuple(config.data[name])
        if was != now:
            text += f"; data.{name} was {was} there and is {now} here"
    return Start(source.arrays, text)


def start_from(state: dict, start: Start) -> dict:
    """A new run's state with `start`'s arrays in it, in its average too."""
    flat = _flat(state)
    new = unflatten_dict(flat | {path: _placed(x, flat[path]) for path, x in start.arrays.items()})
    if "ema" in state:
        # A copy: two names of one buffer could not both be donated.
        new["ema"] = state["ema"] | jax.tree.map(jnp.copy, new)
    return state | new


def _placed(x, like: jax.Array) -> jax.Array:
    """An array on the devices that another is on; every process has the whole of it."""
    if isinstance(x, jax.Array):
        return jax.device_put(x, like.sharding)
    return jax.make_array_from_callback(like.shape, like.sharding, lambda index: x[index])


def _flat(state: Mapping[str, Any]) -> dict[Path, Any]:
    return flatten_dict({name: state[name] for name in ("params", "batch_stats")})


def _name(path: Path) -> str:
    return "/".join(map(str, path))


def _is_torchs(config) -> bool:
    return pathlib.PurePath(config.init_from).suffix in files.SUFFIXES


# --- Which part.


def _part(plan: Plan, alike: bool, source) -> str:
    """The part that is taken, of a network that is of the same kind as the plan's or not."""
    part = plan.config.init_part or ("all" if alike else "backbone")
    if part == "all" and not alike:
        raise ConfigError(
            f"{source} holds another kind of network than {plan.config.model.name}, of which the "
            "backbone alone can be taken: leave init_part open"
        )
    return part


def _backbone(paths: Iterable[Path], class_layers: Iterable[str]) -> dict[Path, Path]:
    """The arrays of a network's backbone: `{their places in it: their places in the network}`.

    That of a classifier is all but its head.
    """
    paths, heads = list(paths), {layer.split("/")[0] for layer in class_layers}
    if any(path[1] == "backbone" for path in paths):
        return {(path[0], *path[2:]): path for path in paths if path[1] == "backbone"}
    return {path: path for path in paths if path[1] not in heads}


# --- PyTorch's weights.


def _of_torch(plan: Plan, wanted: dict[Path, Any]) -> _Source:
    config, task, file = plan.config, plan.task, plan.config.init_from
    if not task.architecture.torch:
        raise ConfigError(
            f"init_from is {file}, but PyTorch's weights can be those of ResNets only"
        )
    if config.model.convention != "pytorch":
        raise ConfigError(
            f"model.convention is {config.model.convention!r}, with which the weights of {file} "
            "would make another network than PyTorch's: leave it open"
        )
    part = _part(plan, "backbone" not in config.model, file)
    places = _backbone(wanted, task.class_layers)
    with files.opened(file) as stored:
        depth = resnet.depth_of(stored)
        if depth is None:
            raise DataError(
                f"{file} holds no ResNet by the names of torchvision or timm, but "
                f"{listed(sorted(stored))}"
            )
        if depth != config.model.depth:
            raise ConfigError(
                f"{file} holds a ResNet-{depth}, where model.depth is {config.model.depth}"
            )
        head = stored.get("fc.bias")
        if part == "all" and head is not None and head.shape == (len(task.class_names),):
            places = {path: path for path in wanted}
        shapes = {_name(short[1:]): wanted[path].shape for short, path in places.items()}
        arrays = resnet.read(file, stored, shapes)
    found = {path: arrays[_name(short[1:])] for short, path in places.items()}
    return _Source(found, f"{file}, PyTorch's ResNet-{depth}", resnet.MEAN, resnet.STD)


# --- Runs of our own.


def _of_run(plan: Plan, wanted: dict[Path, Any], make_task: Callable) -> _Source:
    folder = epath.Path(plan.config.init_from).expanduser()
    whole = (folder / "checkpoints").is_dir()
    directory = folder / "checkpoints" if whole else folder
    if not (directory / "config.json").exists():
        raise ConfigError(
            f"init_from is {folder}, which is neither the workdir of a training run, nor its "
            f"checkpoints folder, nor weights in a file ({', '.join(files.SUFFIXES)})"
        )
    config = config_lib.from_json(directory / "config.json")
    _check_same(config, plan, folder)
    alike = (config.task, config.model.name) == (plan.config.task, plan.config.model.name)
    part = _part(plan, alike, folder)
    source = make_plan(config, make_task, plan.mesh.devices.flat, train=False, evaluate=False)
    state = source.restore(directory, "best", or_latest=True)
    found = _flat(variables(state))
    if part == "backbone":
        ours = _backbone(wanted, plan.task.class_layers)
        theirs = _backbone(found, source.task.class_layers)
        wanted = {path: wanted[path] for path in ours.values()}
        found = {ours.get(short, short): found[path] for short, path in theirs.items()}
    elif list(source.task.class_names) != list(plan.task.class_names):
        layers = tuple(f"{layer}/" for layer in plan.task.class_layers)
        wanted, found = (
            {path: x for path, x in arrays.items() if not _name(path[1:]).startswith(layers)}
            for arrays in (wanted, found)
        )
    faults = [
        f"{_name(path)} is {_shape(found, path)} there, {_shape(wanted, path)} here"
        for path in sorted(wanted.keys() | found.keys(), key=_name)
        if _shape(wanted, path) != _shape(found, path)
    ]
    if faults:
        raise ConfigError(
            f"the network of {folder} is another than this one: {'; '.join(faults)}"
            + ("; its backbone alone is taken by init_part 'backbone'" if part == "all" else "")
        )
    name = f"step {int(state['step'])} of {folder}"
    return _Source(found, name, config.data.mean, config.data.std)


def _shape(arrays, path):
    return list(arrays[path].shape) if path in arrays else "not"


def _check_same(theirs, plan: Plan, folder):
    """Raises ConfigError where parameters of one name would mean something else."""
    names = [config.model.get("backbone", config.model.name) for config in (theirs, plan.config)]
    if names[0] != names[1]:
        raise ConfigError(f"{folder} holds a run with a {names[0]}, this network is a {names[1]}")
    # As JSON has them: theirs was read from it, so that its tuples are lists.
    was, now = (
        config_lib.flat(json.loads(config_lib.to_json(config))) for config in (theirs, plan.config)
    )
    # What is left open, or was not there yet.
    open_ = {"model.convention": "tensorflow"}
    fields = [f"model.{field}" for field in plan.task.architecture.fields]
    changes = []
    for field in (*fields, "data.channels"):
        there, here = (config.get(field) or open_.get(field) for config in (was, now))
        if there != here:
            changes.append(f"{field} is {there!r} there, {here!r} here")
    if changes:
        raise ConfigError(f"{folder} holds another network ({'; '.join(changes)})")
