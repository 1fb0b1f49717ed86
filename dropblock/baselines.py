"""The regularisers that the paper compares DropBlock with."""

import math
from typing import Any

import jax.numpy as jnp

from dropblock import checks, draws, words
from dropblock.op import keep


def _drop(rng, x, keep_prob, mask_shape, return_kept):
    """Keeps what a Bernoulli mask of `mask_shape` keeps, divided by keep_prob."""
    checks.key(rng)
    checks.probability("keep_prob", keep_prob)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"x must have a floating dtype, got {x.dtype}")
    keep_prob = jnp.clip(jnp.asarray(keep_prob, jnp.float32), 0.0, 1.0)
    batch, *shape, channels = mask_shape
    shape = tuple(shape)
    bits = draws.Bits(batch, words.Cells(shape), shape, channels)
    # Drawn as what is dropped, so that a keep_prob near 1 keeps its resolution.
    drawn = draws.bernoulli(rng, bits, 1.0 - keep_prob, typical=0.1, most=1.0)
    dropped = words.rows(drawn, bits.cells)
    y = keep(x, dropped, shape, jnp.where(keep_prob == 0, 0.0, 1.0 / keep_prob))
    kept = words.kept_fraction(words.count(dropped, (1, 2)), math.prod(mask_shape[1:]))
    # As in DropBlock a NaN keep_prob must show; in y it does by the scale.
    kept += 0.0 * keep_prob
    return (y, kept.reshape(-1)) if return_kept else y


def dropout(rng, x, keep_prob, *, return_kept=False) -> Any:
    """Dropout (Srivastava et al., 2014): each element is kept with keep_prob.

    Args:
      rng: a JAX key, required.
      x: floating `[batch, ...]`.
      keep_prob: number or scalar array in [0, 1]; what is kept is divided by it.
      return_kept: also return the kept fraction of each example.

    Returns:
      `y` like `x`; with `return_kept` `(y, kept)`, kept float32 `[batch]`.

    Raises:
      ValueError: keep_prob out of range, or no key.
      TypeError: x is not floating.
    """
    return _drop(rng, x, keep_prob, x.shape, return_kept)


def spatial_dropout(rng, x, keep_prob, *, return_kept=False) -> Any:
    """SpatialDropout (Tompson et al., 2015): each whole channel map is kept with keep_prob.

    Args:
      rng: a JAX key, required.
      x: floating `[batch, *spatial, channels]`.
      keep_prob: number or scalar array in [0, 1]; what is kept is divided by it.
      return_kept: also return the kept fraction of each example.

    Returns:
      `y` like `x`; with `return_kept` `(y, kept)`, kept float32 `[batch]`.

    Raises:
      ValueError: keep_prob out of range, no key, or x without a spatial axis.
      TypeError: x is not floating.
    """
    checks.features(x)
    mask_shape = (x.shape[0], *(1,) * (x.ndim - 2), x.shape[-1])
    return _drop(rng, x, keep_prob, mask_shape, return_kept)


def drop_path(rng, x, keep_prob, *, return_kept=False) -> Any:
    """DropPath (Larsson et al., 2016; stochastic depth): each example is kept whole or not.

    Apply it to the residual branch, not to the sum.

    Args:
      rng: a JAX key, required.
      x: floating `[batch, ...]`.
      keep_prob: number or scalar array in [0, 1]; what is kept is divided by it.
      return_kept: also return the kept fraction (0 or 1) of each example.

    Returns:
      `y` like `x`; with `return_kept` `(y, kept)`, kept float32 `[batch]`.

    Raises:
      ValueError: keep_prob out of range, or no key.
      TypeError: x is not floating.
    """
    return _drop(rng, x, keep_prob, (x.shape[0],) + (1,) * (x.ndim - 1), return_kept)
