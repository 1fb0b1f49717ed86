"""Slow literal numpy versions of the paper's and the authors' rules, and what many tests share."""

import functools
import itertools
import math
import os
import types

import jax
import numpy as np
import pytest
import scipy.stats

from dropblock import draws


def clamp(block, spatial):
    sides = (block,) * len(spatial) if isinstance(block, int) else block
    return tuple(min(side, size) for side, size in zip(sides, spatial, strict=True))


def blocks(block, spatial):
    """The slices of every block that fits into the map."""
    block = clamp(block, spatial)
    starts = [range(size - side + 1) for side, size in zip(block, spatial, strict=True)]
    for start in itertools.product(*starts):
        yield tuple(slice(s, s + side) for s, side in zip(start, block, strict=True))


def coverage(spatial, block):
    """By how many fitting blocks each position is covered, counted one by one."""
    counts = np.zeros(spatial, np.int64)
    for cells in blocks(block, spatial):
        counts[cells] += 1
    return counts


def paper_gamma(keep_prob, spatial, block):
    """Equation 1 as it is printed, with b^2, W^2 and (W - b + 1)^2 written out for each axis."""
    block = clamp(block, spatial)
    legal = [size - side + 1 for side, size in zip(block, spatial, strict=True)]
    return (1 - keep_prob) / math.prod(block) * math.prod(spatial) / math.prod(legal)


def authors_mask(noise, block):
    """Steps 5 to 7 of the authors' op on one map: True where kept.

    `noise` is bool over the *whole* map, as they draw it. Seeds outside their valid region are
    ignored, and the rest grow by a stride-1 max-pool with TensorFlow's SAME padding, whose window
    at i starts at i - (b - 1) // 2.
    """
    spatial, block = noise.shape, clamp(block, noise.shape)
    dropped = np.zeros(spatial, bool)
    for position in itertools.product(*map(range, spatial)):
        for offset in itertools.product(*map(range, block)):
            seed = tuple(
                i - (b - 1) // 2 + o for i, b, o in zip(position, block, offset, strict=True)
            )
            valid = all(
                b // 2 <= s < size - (b - 1) // 2
                for s, b, size in zip(seed, block, spatial, strict=True)
            )
            if valid and noise[seed]:
                dropped[position] = True
    return ~dropped


def opening(dropped, block):
    """The union of the blocks that lie wholly in `dropped`, bool over one map."""
    union = np.zeros_like(dropped)
    for cells in blocks(block, dropped.shape):
        if dropped[cells].all():
            union[cells] = True
    return union


def normalised(x, mask, how):
    """Algorithm 1's last two lines on `[batch, *spatial, channels]`, one region at a time."""
    y = np.where(mask, x, 0.0).astype(np.float64)
    mask = np.broadcast_to(mask, x.shape)
    regions = {
        "batch": [np.s_[:]],
        "sample": [np.s_[n] for n in range(len(x))],
        "map": [np.s_[n, ..., c] for n in range(len(x)) for c in range(x.shape[-1])],
        None: [],
    }[how]
    for region in regions:
        if mask[region].any():
            y[region] *= mask[region].size / mask[region].sum()
    return y


def agree(counts, probabilities, trials, tail):
    """Asserts that each count could be a draw of `trials` with its probability.

    On each side the exact tail probability must be at least `tail`.
    """
    counts, probabilities = np.asarray(counts), np.asarray(probabilities)
    low = scipy.stats.binom.cdf(counts, trials, probabilities)
    high = scipy.stats.binom.sf(counts - 1, trials, probabilities)
    worst = np.unravel_index(np.argmin(np.minimum(low, high)), counts.shape)
    expected = np.broadcast_to(probabilities, counts.shape)[worst] * trials
    assert min(low.min(), high.min()) >= tail, (
        f"{counts[worst]} of {trials} at {worst}, expected {expected:.1f}"
    )


@pytest.fixture(scope="session")
def reference():
    """The functions above. A fixture, since importlib mode cannot import a sibling file."""
    return types.SimpleNamespace(
        agree=agree,
        authors_mask=authors_mask,
        blocks=blocks,
        clamp=clamp,
        coverage=coverage,
        normalised=normalised,
        opening=opening,
        paper_gamma=paper_gamma,
    )


@pytest.fixture(scope="session", params=draws.FORMS)
def form(request):
    """Runs a test once for each form of the draw, whatever platform this is."""
    with pytest.MonkeyPatch.context() as patch:
        drawn = functools.partial(draws.bernoulli, form=request.param)
        patch.setattr(draws, "bernoulli", drawn)
        jax.clear_caches()  # of functions that are compiled with another form
        yield request.param
    jax.clear_caches()


@pytest.fixture
def optimised_jit():
    """`jax.jit` with XLA as its users have it, for what it could break: jit inside the test."""
    jax.config.update("jax_disable_most_optimizations", False)
    switched_off = "xla_cpu_use_fusion_emitters" in os.environ.get("XLA_FLAGS", "")
    options = {"xla_cpu_use_fusion_emitters": True} if switched_off else None
    yield functools.partial(jax.jit, compiler_options=options)
    jax.config.update("jax_disable_most_optimizations", True)
