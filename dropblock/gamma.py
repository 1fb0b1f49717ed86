"""How often blocks are seeded (gamma), and what fraction of a map that really keeps."""

import functools
import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from dropblock import checks

GAMMA_RULES = ("paper", "exact")

# Newton steps of the exact rule. From 0 the iteration below is monotone; 24 steps reach float64
# accuracy from keep_prob 1 down to 1e-6 on every map tried (tests/dropblock/test_gamma.py).
_NEWTON_STEPS = 24
# From the table, which is right to 1 %, each step doubles the digits: two reach those of float32.
_TRACED_STEPS = 2
_LEAST_KEEP_PROB = 1e-30


@functools.cache
def _coverage(spatial_shape, block_shape):
    """By how many legal blocks the positions of a map are covered.

    Returns:
      `counts`, the distinct numbers of covering blocks, and `weights`, the fraction of positions
      that have each of them; both float64 `[n]`.
    """
    histogram = {1: 1.0}
    for size, block in zip(spatial_shape, block_shape, strict=True):
        last = size - block  # the last legal start of a block
        starts = np.arange(size)
        covering = np.minimum(starts, last) - np.maximum(starts - block + 1, 0) + 1
        values, occurrences = np.unique(covering, return_counts=True)
        product = {}
        for count, weight in histogram.items():
            for value, occurrence in zip(values.tolist(), occurrences.tolist(), strict=True):
                share = weight * occurrence / size
                product[count * value] = product.get(count * value, 0.0) + share
        histogram = product
    counts = sorted(histogram)
    return np.array(counts, np.float64), np.array([histogram[count] for count in counts])


def _exact_gamma(keep_prob, spatial_shape, block_shape, numpy):
    """Solves expected_keep(gamma) = keep_prob.

    With t = -log(1 - gamma) the expected keep is sum_n w_n exp(-n t). Its logarithm is convex and
    falling in t, so Newton's method from t = 0 approaches the root from the left and cannot
    overshoot.
    """
    target = numpy.log(numpy.maximum(keep_prob, _LEAST_KEEP_PROB))
    counts, weights = _coverage(spatial_shape, block_shape)
    t, steps = 0.0, _NEWTON_STEPS
    if numpy is jnp:
        # No loop of so many steps, for each of which a GPU starts a kernel and waits.
        bends, at = _inverse_log_keep(spatial_shape, block_shape)
        t = jnp.sum(jnp.float32(bends) * jnp.maximum(jnp.float32(at) - target, 0.0))
        steps = _TRACED_STEPS
        counts, weights = jnp.float32(counts), jnp.float32(weights)
    for _ in range(steps):
        terms = weights * numpy.exp(-counts * t)
        keep = terms.sum()
        # Near 1 what is dropped has more digits than what is kept.
        dropped = -(weights * numpy.expm1(-counts * t)).sum()
        log_rest = numpy.log1p(-numpy.minimum(dropped, 0.5))
        log_keep = numpy.where(dropped > 0.5, numpy.log(keep), log_rest)
        t = t + (log_keep - target) * keep / (counts * terms).sum()
    # The iteration ends within a rounding of the ends, and 1e-9 would still drop a block.
    gamma = numpy.where(keep_prob < 1, -numpy.expm1(-numpy.maximum(t, 0.0)), 0.0)
    return numpy.where(keep_prob > 0, gamma, 1.0)


@functools.cache
def _inverse_log_keep(spatial_shape, block_shape):
    """A table of t, the log of the expected keep being given: straight between its points.

    Returns:
      `bends` and `at`, float64 `[n]`: t is the sum of `bends * max(at - log_keep, 0)`.
    """
    counts, weights = _coverage(spatial_shape, block_shape)
    # log_keep is at least -max(counts) t and at most -t, since a corner is in one block only.
    last = -math.log(_LEAST_KEEP_PROB)
    t = np.append(0.0, np.geomspace(1e-3 / counts[-1], 1.01 * last, 96))
    at = np.log(np.exp(-np.outer(t, counts)) @ weights)
    slopes = np.diff(t) / -np.diff(at)
    return np.diff(slopes, prepend=0.0), at[:-1]


def block_gamma(keep_prob, spatial_shape, block_size, gamma_rule="paper") -> Any:
    """The probability that a legal position seeds a dropped block.

    "paper" is the paper's equation, taken for each axis (sizes W, block sides b clamped to W):

        gamma = (1 - keep_prob) * prod(W / (b * (W - b + 1)))

    It takes blocks to be disjoint; they overlap, so more than keep_prob is kept. "exact" is the
    gamma at which `expected_keep` equals keep_prob.

    Args:
      keep_prob: number or scalar array in [0, 1].
      spatial_shape: the map's size on each spatial axis.
      block_size: int, or one int for each axis.
      gamma_rule: "paper" or "exact".

    Returns:
      A float for a number, float32 scalar otherwise; in [0, 1].

    Raises:
      ValueError: keep_prob, block_size or gamma_rule out of range.

    Source: section 3.1 of the paper; docs/paper.md section 1.
    """
    checks.probability("keep_prob", keep_prob)
    checks.choice("gamma_rule", gamma_rule, GAMMA_RULES)
    spatial_shape = tuple(spatial_shape)
    block_shape = checks.block_shape(block_size, spatial_shape)
    number = checks.is_number(keep_prob)
    if not number:
        # Rounding of a schedule may leave [0, 1] by a bit; a probability may not.
        keep_prob = jnp.clip(jnp.asarray(keep_prob, jnp.float32), 0.0, 1.0)
    if gamma_rule == "paper":
        gamma = (1.0 - keep_prob) * math.prod(
            size / (block * (size - block + 1))
            for size, block in zip(spatial_shape, block_shape, strict=True)
        )
    else:
        gamma = _exact_gamma(keep_prob, spatial_shape, block_shape, np if number else jnp)
    return float(gamma) if number else gamma


def expected_keep(gamma, spatial_shape, block_size) -> Any:
    """The expected fraction of a map that is kept, overlaps of blocks included.

    A position that n legal blocks cover is kept with probability `(1 - gamma) ** n`; this is
    the mean over the map.

    Args:
      gamma: number or scalar array in [0, 1], as from `block_gamma`.
      spatial_shape: the map's size on each spatial axis.
      block_size: int, or one int for each axis.

    Returns:
      A float for a number, float32 scalar otherwise.

    Raises:
      ValueError: gamma or block_size out of range.
    """
    checks.probability("gamma", gamma)
    spatial_shape = tuple(spatial_shape)
    block_shape = checks.block_shape(block_size, spatial_shape)
    counts, weights = _coverage(spatial_shape, block_shape)
    if checks.is_number(gamma):
        return float(np.sum(weights * (1.0 - float(gamma)) ** counts))
    log_keep = jnp.log1p(-jnp.asarray(gamma, jnp.float32))
    return jnp.sum(jnp.float32(weights) * jnp.exp(jnp.float32(counts) * log_keep))
