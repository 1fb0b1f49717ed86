"""DropBlock itself: the mask, and the op that applies it."""

import math
from collections.abc import Sequence
from typing import Literal, overload

import jax
import jax.numpy as jnp

from dropblock import checks, draws
from dropblock.gamma import block_gamma

NORMALIZE = ("batch", "sample", "map", None)


def _grow(seeds, block_shape, spatial_shape):
    """Grows each seed to its block.

    Args:
      seeds: bool `[batch, *(size - block + 1), channels]`, True at the first cell of a block.

    Returns:
      bool `[batch, *spatial, channels]`, True inside a block.
    """
    for axis, (block, size) in enumerate(zip(block_shape, spatial_shape, strict=True), start=1):
        padding = [(0, 0, 0)] * seeds.ndim
        padding[axis] = (0, size - seeds.shape[axis], 0)
        seeds = jax.lax.pad(seeds, False, padding)
        # Shifted ORs whose span doubles: log2(block) passes where a window would take block.
        span = 1
        while span < block:
            shift = min(span, block - span)
            padding[axis] = (shift, -shift, 0)
            seeds = seeds | jax.lax.pad(seeds, False, padding)
            span += shift
    return seeds


def dropblock_mask(
    rng: jax.Array,
    shape: Sequence[int],
    keep_prob: float | jax.Array,
    block_size: int | Sequence[int],
    *,
    shared_mask: bool = False,
    gamma_rule: str = "paper",
) -> jax.Array:
    """Draws the mask of DropBlock.

    Every legal position is a seed with probability gamma; a position is legal where the whole
    block fits. A seed at s drops `s - b // 2 .. s + (b - 1) // 2` on each axis, so an even block
    has its extra cell toward the start, as in the authors' code.

    Args:
      rng: a JAX key. The mask of an example depends on the key and on the example's position in
        the batch only.
      shape: `[batch, *spatial, channels]`.
      keep_prob: number or scalar array in [0, 1].
      block_size: int, or one int for each spatial axis; clamped to the map.
      shared_mask: one mask for all channels instead of one for each.
      gamma_rule: "paper" or "exact", see `block_gamma`.

    Returns:
      bool `[batch, *spatial, channels]`, or `[batch, *spatial, 1]` with `shared_mask`; True where
      kept.

    Raises:
      ValueError: an argument out of range.

    Source: Algorithm 1 of the paper; docs/paper.md section 1.
    """
    checks.key(rng)
    checks.feature_shape(shape)
    batch, *spatial_shape, channels = shape
    block_shape = checks.block_shape(block_size, spatial_shape)
    gamma = block_gamma(keep_prob, spatial_shape, block_size, gamma_rule)
    legal = [size - block + 1 for size, block in zip(spatial_shape, block_shape, strict=True)]
    # Only legal positions are drawn, each named by the first cell of its block.
    seeds = draws.bernoulli(rng, (batch, *legal, 1 if shared_mask else channels), gamma)
    return ~_grow(seeds, block_shape, spatial_shape)


def kept_fraction(mask, axes) -> jax.Array:
    """The fraction of True over `axes`, counted in integers; float32, `axes` kept as 1."""
    cells = math.prod(mask.shape[axis] for axis in axes)
    # A count in the dtype of x is what makes other implementations zero whole float16 maps.
    count = jnp.sum(mask, axes, dtype=jnp.uint32, keepdims=True)
    # XLA divides by a constant as a product with its inverse, and 41 * (1 / 41) is not 1.
    fraction = count.astype(jnp.float32) / jnp.float32(cells)
    return jnp.where(count == jnp.uint32(cells), 1.0, fraction)


def apply_mask(x, mask, scale) -> jax.Array:
    """`x * mask * scale` in x's dtype, computed in float32 at least; no 0 * inf."""
    wide = x if jnp.finfo(x.dtype).bits > 32 else x.astype(jnp.float32)
    return jnp.where(mask, wide * scale, 0.0).astype(x.dtype)


@overload
def dropblock(
    rng: jax.Array,
    x: jax.Array,
    keep_prob: float | jax.Array,
    block_size: int | Sequence[int],
    *,
    shared_mask: bool = ...,
    gamma_rule: str = ...,
    normalize: str | None = ...,
    return_kept: Literal[False] = ...,
) -> jax.Array: ...


@overload
def dropblock(
    rng: jax.Array,
    x: jax.Array,
    keep_prob: float | jax.Array,
    block_size: int | Sequence[int],
    *,
    shared_mask: bool = ...,
    gamma_rule: str = ...,
    normalize: str | None = ...,
    return_kept: Literal[True],
) -> tuple[jax.Array, jax.Array]: ...


def dropblock(
    rng,
    x,
    keep_prob,
    block_size,
    *,
    shared_mask=False,
    gamma_rule="paper",
    normalize: str | None = "batch",
    return_kept=False,
):
    """Drops contiguous blocks of a feature map and rescales what is left.

        y = x * mask * size(mask) / sum(mask)

    There is no inference switch: call it where something is to be dropped.

    Under jit the same key gives the same mask on any number of devices. Inside `jax.shard_map` or
    `jax.vmap` positions in the batch are local, so give each shard its own key:

        rng = jax.random.fold_in(rng, jax.lax.axis_index("data"))

    Args:
      rng: a JAX key, required.
      x: floating `[batch, *spatial, channels]`, one or more spatial axes.
      keep_prob: number or scalar array, traced or not, in [0, 1]; a schedule never recompiles.
        1 is the identity. Arrays outside the range are clipped to it.
      block_size: int, or one int for each spatial axis; odd or even; clamped to the map. 1 is
        dropout, the whole map is SpatialDropout.
      shared_mask: one mask for all channels instead of one for each (the paper's better form).
      gamma_rule: "paper", or "exact" for an expected kept fraction of exactly keep_prob; see
        `block_gamma`.
      normalize: what the scale is taken over. "batch": one scalar, as the authors run it; under a
        sharded jit it costs one scalar all-reduce. "sample": each example by itself, no
        communication. "map": each example and channel; biased low where a whole map is dropped,
        since nothing is left to scale up. None: no scaling.
      return_kept: also return the kept fraction of each example.

    Returns:
      `y` like `x`; with `return_kept` `(y, kept)`, kept float32 `[batch]`, the fraction of each
      example's mask that was kept, before normalisation. Where all was dropped, y is zero.

    Raises:
      ValueError: an argument out of range, or no key.
      TypeError: x is not floating.

    Source: Algorithm 1 of the paper; docs/paper.md section 1.
    """
    checks.features(x)
    checks.choice("normalize", normalize, NORMALIZE)
    mask = dropblock_mask(
        rng, x.shape, keep_prob, block_size, shared_mask=shared_mask, gamma_rule=gamma_rule
    )
    kept = kept_fraction(mask, range(1, x.ndim))
    if normalize is None:
        y = jnp.where(mask, x, jnp.zeros_like(x))
    else:
        size, total = {
            # Not the mean, which is a product with 1 / batch and would not be 1 for all kept.
            "batch": lambda: (x.shape[0], kept.sum(0, keepdims=True)),
            "sample": lambda: (1, kept),
            "map": lambda: (1, kept_fraction(mask, range(1, x.ndim - 1))),
        }[normalize]()
        # Where nothing is kept there is nothing to scale: 0, not 1 / 0.
        y = apply_mask(x, mask, jnp.where(total > 0, size / total, 0.0))
    return (y, kept.reshape(-1)) if return_kept else y
