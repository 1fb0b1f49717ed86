"""`config.drop` as a model's `Drop`."""

from models.drop import Drop


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
