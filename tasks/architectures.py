"""What `config.model` means: the networks that classify, and those of them that are backbones.

A new network is its file in models/, a row here, and a config: docs/extending.md.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from dropblock import checks
from models import amoebanet, resnet
from models.cell_tables import CELLS
from models.drop import Drop
from models.layers import Norm


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One kind of network.

    Attributes:
      make: `config -> network`, itself a function `(num_classes, *, in_channels, drop, dtype,
        platform, rngs) -> nnx.Module`. That of a backbone takes `sites` and `norm` too, see
        `models.fpn.PyramidNetwork`.
      fields: of `config.model`, that say which network it is: the first is of its configs alone,
        and all must be equal where one takes another's parameters for its backbone.
      backbone: whether pyramids can stand on it.
      torch: whether `weights.resnet` has its layers' names in PyTorch.
      features: `out -> [batch, height, width, channels]`, of the network's output the map whose
        mean over positions its layer `head` takes; None where it takes another.
    """

    make: Callable[[Any], Callable]
    fields: tuple[str, ...]
    backbone: bool
    torch: bool = False
    features: Callable[[dict], jax.Array] | None = None


def _resnet(config):
    model = config.model
    return functools.partial(
        resnet.ResNet,
        model.depth,
        stem=model.stem,
        stem_stride=model.stem_stride,
        width_multiplier=model.width_multiplier,
        # Runs that were begun before there was the field have none.
        convention=model.get("convention") or "tensorflow",
        norm=_norm(config, resnet.NORM),
    )


def _amoebanet(config):
    model = config.model
    checks.choice("model.cells", model.cells, tuple(CELLS))
    checks.probability("model.head_keep_prob", model.head_keep_prob)
    if config.aux_weight < 0:
        raise ValueError(f"aux_weight must not be negative, got {config.aux_weight}")
    return functools.partial(
        amoebanet.AmoebaNet,
        CELLS[model.cells],
        model.cells_per_stack,
        model.filters,
        image_size=config.data.image_size,
        stem=model.stem,
        stem_stride=model.stem_stride,
        aux_head=config.aux_weight > 0,
        head_keep_prob=model.head_keep_prob,
        remat=model.remat,
        norm=_norm(config, amoebanet.NORM),
    )


def _last_cell(out):
    last = max((name for name in out if name.startswith("cell")), key=lambda name: int(name[4:]))
    return nnx.relu(out[last])


def _norm(config, norm: Norm) -> Norm:
    """A network's own constants of BatchNorm, with the config's groups."""
    return dataclasses.replace(norm, group_size=config.model.get("bn_group_size", 0))  # as above


ARCHITECTURES = {
    "resnet": Architecture(
        _resnet,
        ("depth", "width_multiplier", "stem", "stem_stride", "convention"),
        backbone=True,
        torch=True,
        features=lambda out: out["group4"],
    ),
    "amoebanet": Architecture(
        _amoebanet,
        ("cells",),
        backbone=False,
        features=_last_cell,
    ),
}


def architecture_of(config) -> Architecture:
    """What a classification config names.

    Raises:
      ValueError: there is no such network, or the config is another's.
    """
    return _named(config, "name", ARCHITECTURES)


def backbone_of(config) -> Architecture:
    """What a detection or segmentation config names, its BatchNorm's fields checked.

    Raises:
      ValueError: there is no such backbone, the config is another's, or a field is out of range.
    """
    model = config.model
    backbones = {name: row for name, row in ARCHITECTURES.items() if row.backbone}
    found = _named(config, "backbone", backbones)
    checks.probability("model.bn_momentum", model.bn_momentum)
    if model.bn_epsilon <= 0:
        raise ValueError(f"model.bn_epsilon must be positive, got {model.bn_epsilon}")
    return found


def _named(config, field: str, rows: dict[str, Architecture]) -> Architecture:
    """The row that a field of `config.model` names, whose own fields the config has."""
    if field not in config.model:
        raise ValueError(
            f"this config has no model.{field}, one of {', '.join(rows)}: where it is of a run "
            "that was begun before there was one, write it into the run's config.json"
        )
    name = config.model[field]
    checks.choice(f"model.{field}", name, tuple(rows))
    found = rows[name]
    if found.fields[0] not in config.model:
        raise ValueError(
            f"this config is not of model.{field} {name!r}: it has no model.{found.fields[0]}; "
            "use a config of that network"
        )
    return found


def pyramid_options(config, drop: Drop, platform: str | None) -> dict[str, Any]:
    """The arguments that all networks with a feature pyramid share."""
    model = config.model
    return {
        "backbone": backbone_of(config).make(config),
        "in_channels": config.data.channels,
        "min_level": model.min_level,
        "max_level": model.max_level,
        "fpn_channels": model.fpn_channels,
        "head_convs": model.head_convs,
        "head_channels": model.head_channels,
        "drop": drop,
        "norm": _norm(config, Norm(model.bn_momentum, model.bn_epsilon)),
        "dtype": jnp.dtype(config.dtype),
        "platform": platform,
    }
