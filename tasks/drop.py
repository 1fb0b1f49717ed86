"""`config.drop` as a model's `Drop`."""

from typing import Any

from models.drop import Drop


def drop_at_inference(config: Any, keep_prob: float | None = None) -> float:
    """Lets a run's config drop in a network that is not trained; returns at which keep_prob.

    Args:
      config: of the run, which is written to: the drop sites alone are to act, with DropBlock where
        the run itself dropped nothing.
      keep_prob: before the places' factors; by default that of training.

    Raises:
      ValueError: none is given, and the run dropped nothing.
    """
    if keep_prob is not None:
        config.drop.keep_prob = keep_prob
    elif config.drop.kind == "none":
        raise ValueError(
            "the run was trained without dropping: say by --keep_prob how much DropBlock is to keep"
        )
    if config.drop.kind == "none":
        config.drop.kind = "dropblock"
    config.model.head_keep_prob = 1.0
    return config.drop.keep_prob


def make_drop(drop) -> Drop:
    """The model's description of `config.drop`; its place "group4/block1" is "group4.block1" there.

    Raises:
      ValueError: a field out of range.
    """
    block_size = drop.block_size
    if not hasattr(drop.places, "items"):
        raise ValueError(f"drop.places must give a factor for each place, got {drop.places!r}")
    return Drop(
        kind=drop.kind,
        places={name.replace("/", "."): factor for name, factor in drop.places.items()},
        block_size=tuple(block_size) if isinstance(block_size, list) else block_size,
        sites=tuple(drop.sites),
        shared_mask=drop.shared_mask,
        gamma_rule=drop.gamma_rule,
        normalize=None if drop.normalize == "none" else drop.normalize,  # for the command line
    )
