"""`predict.json`: all that one has to know of an exported network, and what its files must be."""

import hashlib
import importlib.metadata
import json
from typing import Any

import jax
from etils import epath
from jax.export import Exported

import dropblock
from exporting.program import served
from tasks.base import Task
from training.config import ConfigError, to_json
from training.files import is_file, read_object

NAME, MODEL, ONNX = "predict.json", "model.jax", "model.onnx"
FORMAT = 1

# What must be there, and of which kind.
_FIELDS = {
    "task": str,
    "classes": list,
    "step": int,
    "weights": str,
    "inputs": dict,
    "outputs": dict,
    "files": dict,
    "config": dict,
}


def versions(*packages: str) -> dict[str, str]:
    """Of packages."""
    return {name: importlib.metadata.version(name) for name in packages}


def describe(
    task: Task, exported: Exported, *, step: int, workdir: str, files: dict[str, dict]
) -> dict[str, Any]:
    """What `predict.json` says.

    Args:
      task: of the run.
      exported: its function.
      step: of training, after which the weights are.
      workdir: the name of the run's folder.
      files: of each file its `sha256`, and what there is to know of it.
    """
    config, row = task.config, served(task)
    inputs = row.all_inputs(config)
    outputs = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    return {
        "format": FORMAT,
        "task": config.task,
        "classes": list(task.class_names),
        "workdir": workdir,
        "step": step,
        "weights": "weights" if config.ema_decay is None else "moving average (EMA) of the weights",
        "inputs": {
            name: _array(("batch", *x.shape), x.dtype, x.meaning) for name, x in inputs.items()
        },
        "preparation": row.preparation(config),
        "normalization": {
            "words": "done inside: (image / 255 - mean) / std",
            "mean": list(config.data.mean),
            "std": list(config.data.std),
        },
        "outputs": {
            name: _array(outputs[name].shape, outputs[name].dtype, meaning)
            for name, meaning in row.outputs.items()
            if name in outputs
        },
        "decoding": row.decoding(task),
        "files": files,
        "versions": {"dropblock-jax": dropblock.__version__} | versions("jax", "jaxlib", "flax"),
        "config": json.loads(to_json(config)),
    }


def _array(shape, dtype, meaning: str) -> dict[str, Any]:
    sizes = [size if isinstance(size, int) else str(size) for size in shape]
    return {"shape": sizes, "dtype": str(dtype), "meaning": meaning}


def to_text(content: dict[str, Any]) -> str:
    """The text of `predict.json`, with a sum of its own."""
    return json.dumps(content | {"sha256": _own_sum(content)}, indent=1) + "\n"


def read(folder: epath.Path) -> dict[str, Any]:
    """Reads a folder's `predict.json`.

    Raises:
      ConfigError: it is not there, or not as it was written; the message says what is wrong.
    """
    path = folder / NAME
    try:
        card = read_object(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is damaged ({error}): export anew") from None
    if card.get("format") != FORMAT:
        raise ConfigError(
            f"{path} is of format {card.get('format')!r}, where this version reads {FORMAT}: "
            "export anew"
        )
    for name, kind in _FIELDS.items():
        if not isinstance(card.get(name), kind) or card[name] == []:
            what = "list of classes" if name == "classes" else f"field {name!r}"
            raise ConfigError(f"{path} has no {what}: export anew")
    if card.pop("sha256", None) != _own_sum(card):
        raise ConfigError(f"{path} is not what was written, by its sha256 sum: export anew")
    return card


def content(folder: epath.Path, card: dict[str, Any], name: str) -> bytes:
    """The content of one of the folder's files.

    Raises:
      ConfigError: it is not there, or not the one that was written with `predict.json`.
    """
    path, expected = folder / name, card["files"].get(name)
    if not isinstance(expected, dict):
        raise ConfigError(f"{folder / NAME} knows no {name}: export anew")
    if not is_file(path):
        raise ConfigError(f"{path} is not there: export anew")
    found = path.read_bytes()
    if sha256(found) != expected.get("sha256"):
        raise ConfigError(
            f"{path} is damaged or of another export: its sha256 sum is not that in {NAME}"
        )
    return found


def sha256(content: bytes) -> str:
    """The sum, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def _own_sum(content: dict[str, Any]) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode())
