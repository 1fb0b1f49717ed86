"""DropBlock itself: the mask, and the op that applies it."""

import functools
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, overload

import jax
import jax.numpy as jnp

from dropblock import checks, draws, words
from dropblock.gamma import block_gamma, expected_keep

NORMALIZE = ("batch", "sample", "map", None)

# Where the draw is to be quick, see `draws.bernoulli`: the paper's ResNet ends at 0.9.
_TYPICAL_KEEP_PROB = 0.9


class _Draw(NamedTuple):
    """What is dropped, as rows of words, and how it was drawn."""

    dropped: jax.Array
    shape: tuple[int, ...]  # of its maps, which broadcasts to that of x's
    gamma: Any
    positions: int  # where a seed could have been, in the whole batch


def _draw(rng, shape, keep_prob, block_size, shared_mask, gamma_rule) -> _Draw:
    checks.key(rng)
    checks.feature_shape(shape)
    batch, *spatial_shape, channels = shape
    block_shape = checks.block_shape(block_size, spatial_shape)
    gamma, typical, most = (
        block_gamma(value, spatial_shape, block_size, gamma_rule)
        for value in (keep_prob, _TYPICAL_KEEP_PROB, 0.0)
    )
    # Only legal positions are drawn, each named by the first cell of its block.
    legal = tuple(size - side + 1 for size, side in zip(spatial_shape, block_shape, strict=True))
    # An axis that a block covers is one cell: what is dropped, is dropped all along it.
    shape = tuple(1 if n == 1 else size for size, n in zip(spatial_shape, legal, strict=True))
    block_shape = tuple(size - n + 1 for size, n in zip(shape, legal, strict=True))
    cells = words.Cells((*shape[:-1], legal[-1]))
    bits = draws.Bits(batch, cells, legal, 1 if shared_mask else channels)
    probability = jax.lax.stop_gradient(gamma)
    seeds = draws.bernoulli(rng, bits, probability, typical=typical, most=most)
    dropped = words.grow(seeds, cells, block_shape)
    return _Draw(dropped, shape, gamma, batch * math.prod(legal) * bits.channels)


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
        the batch only; a CPU draws other masks of the same law than a TPU or a GPU.
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
    draw = _draw(rng, shape, keep_prob, block_size, shared_mask, gamma_rule)
    mask = ~words.unpack(draw.dropped, draw.shape)
    return jnp.broadcast_to(mask, (*shape[:-1], mask.shape[-1]))


@functools.partial(jax.jit, static_argnames="shape")
def keep(x, dropped, shape, scale=None) -> jax.Array:
    """`x` where not `dropped`, zero elsewhere, times `scale`; in x's dtype, and no 0 * inf.

    Args:
      dropped: rows of words of maps of this shape that, once unpacked, broadcast to x.
      scale: float32, broadcasts to x; None is 1.
    """

    # Unpacking again is cheaper than keeping a mask: the backward pass gets the words alone, and
    # unlike a custom_vjp it can be differentiated once more. A barrier against CSE would part the
    # mask from the convolutions that XLA fuses it with.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def unpack_and_keep(x, dropped, scale):
        # Chosen before it is wide and scaled: a TPU's compiler has less to do for each reader.
        kept = jnp.where(words.unpack(dropped, shape), jnp.zeros_like(x), x)
        if scale is None:
            return kept
        wide = kept if jnp.finfo(x.dtype).bits > 32 else kept.astype(jnp.float32)
        return (wide * scale).astype(x.dtype)

    return unpack_and_keep(x, dropped, scale)


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

    Under jit the same key gives the same mask on any number of devices of a kind; a CPU draws other
    masks of the same law than a TPU or a GPU (docs/mask.md). Inside `jax.shard_map` or `jax.vmap`
    positions in the batch are local, so give each shard its own key:

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
    y, kept, _ = _drop(rng, x, keep_prob, block_size, shared_mask, gamma_rule, normalize)
    return (y, kept) if return_kept else y


def dropblock_expecting(
    rng, x, keep_prob, block_size, *, shared_mask, gamma_rule, normalize
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """`dropblock`, and what was to be expected of it: for networks that watch what they drop.

    Returns:
      `(y, kept, expected, seeds)`: y and kept as of `dropblock`, the expectation of kept, and the
      expected number of seeds in the batch, both float32 scalars.
    """
    y, kept, draw = _drop(rng, x, keep_prob, block_size, shared_mask, gamma_rule, normalize)
    expected = expected_keep(draw.gamma, x.shape[1:-1], block_size)
    return y, kept, jnp.float32(expected), jnp.float32(draw.gamma * float(draw.positions))


def _drop(rng, x, keep_prob, block_size, shared_mask, gamma_rule, normalize):
    """`y`, `kept` and the `_Draw` of `dropblock`."""
    checks.features(x)
    checks.choice("normalize", normalize, NORMALIZE)
    draw = _draw(rng, x.shape, keep_prob, block_size, shared_mask, gamma_rule)
    cells, channels = math.prod(draw.shape), draw.dropped.shape[-1]

    def kept_over(axes, cells):
        kept = words.kept_fraction(words.count(draw.dropped, axes), cells)
        return kept.reshape(-1, *(1,) * (x.ndim - 2), kept.shape[-1])

    kept = kept_over((1, 2), cells * channels)
    # Of a NaN keep_prob nothing sensible is drawn; it must show.
    kept += 0.0 * jax.lax.stop_gradient(draw.gamma)
    if normalize is None:
        y = keep(x, draw.dropped, draw.shape)
    else:
        size, total = {
            # Not the mean, which is a product with 1 / batch and would not be 1 for all kept.
            "batch": lambda: (x.shape[0], kept.sum(0, keepdims=True)),
            "sample": lambda: (1, kept),
            "map": lambda: (1, kept_over(1, cells)),
        }[normalize]()
        # Where nothing is kept there is nothing to scale: 0, not 1 / 0.
        y = keep(x, draw.dropped, draw.shape, jnp.where(total == 0, 0.0, size / total))
    return y, kept.reshape(-1), draw
