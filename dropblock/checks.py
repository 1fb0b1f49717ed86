"""What the arguments of the public functions must be, said in one place.

Public: a network or a training loop that takes a keep_prob or a block_size refuses wrong ones by
the same rules, in the same words.
"""

import math
import operator

import jax.numpy as jnp
import numpy as np


def is_number(value) -> bool:
    """True for a plain Python or NumPy number, False for a JAX array, traced or not."""
    return isinstance(value, int | float | np.number)


def probability(name: str, value) -> None:
    """Raises ValueError unless a number in [0, 1] or a scalar array, whose value is not read."""
    if not is_number(value) and getattr(value, "shape", None) != ():
        raise ValueError(f"{name} must be a number or a scalar array, got {value!r}")
    if is_number(value) and not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} must be in [0, 1], got {value}")


def choice(name: str, value, allowed: tuple) -> None:
    """Raises ValueError where `value` is not one of `allowed`."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {allowed}, got {value!r}")


def features(x) -> None:
    """Raises unless `x` is floating `[batch, *spatial, channels]` with a spatial axis."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"x must have a floating dtype, got {x.dtype}")
    feature_shape(x.shape)


def feature_shape(shape) -> None:
    """Raises ValueError unless `shape` is `[batch, *spatial, channels]` with a spatial axis."""
    if len(shape) < 3:
        raise ValueError(
            "the shape must be [batch, *spatial, channels] with at least one spatial axis, "
            f"got {tuple(shape)}"
        )


def key(rng) -> None:
    """Raises ValueError where no JAX key was given."""
    if rng is None:
        raise ValueError("rng must be a JAX key, got None: without a key nothing would be dropped")


def block_size(value) -> tuple[int, ...]:
    """The sides that `value` names, one or one for each axis.

    Raises:
      ValueError: a side below 1.
      TypeError: a side that is not an integer.
    """
    try:
        sides = tuple(map(operator.index, value if isinstance(value, tuple | list) else (value,)))
    except TypeError:
        raise TypeError(f"block_size must be an int or a tuple of ints, got {value!r}") from None
    if min(sides, default=0) < 1:
        raise ValueError(f"block_size must be at least 1 on each axis, got {value}")
    return sides


def block_shape(value, spatial_shape) -> tuple[int, ...]:
    """The block's side on each axis, clamped to the map.

    Raises:
      ValueError: a side below 1, or a tuple whose length is not the number of spatial axes.
      TypeError: a side that is not an integer.
    """
    sides = block_size(value)
    rank = len(spatial_shape)
    if not isinstance(value, tuple | list):
        sides = sides * rank
    if len(sides) != rank:
        raise ValueError(
            f"block_size must be an int or have one side for each of the {rank} spatial axes, "
            f"got {value}"
        )
    if math.prod(spatial_shape) < 1:
        raise ValueError(f"the map must not be empty, got spatial shape {tuple(spatial_shape)}")
    # Figure 4 uses blocks of 8 to 14 on 7x7 maps: clamping is part of the method.
    return tuple(min(side, size) for side, size in zip(sides, spatial_shape, strict=True))
