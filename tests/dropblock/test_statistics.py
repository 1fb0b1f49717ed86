"""What is drawn, against the exact law, at every position.

The keys are fixed. What the bounds promise: if the library is right, the chance over the keys that
anything in this file fails is below 1e-6. Each of the COUNTS counts that are looked at is binomial
with a known probability and may fail on either side, so the exact tail probability of each side
must be at least 1e-6 / (2 * COUNTS) for one form, about 6e-11, 6.4 standard deviations, and half of
that for two. By the union bound that is 1e-6 in all, however the counts depend on each other.
"""

import functools
import itertools
import math

import jax
import numpy as np
import pytest

from dropblock import block_gamma, draws, drop_path, dropblock_mask, dropout, spatial_dropout

pytestmark = pytest.mark.usefixtures("form")

EXAMPLES, CHANNELS = 1024, 32
MAPS = EXAMPLES * CHANNELS  # 32,768

draw = jax.jit(dropblock_mask, static_argnames=("shape", "block_size", "shared_mask", "gamma_rule"))

# spatial shape, block, keep_prob, options
CASES = [
    ((9,), 3, 0.8, {}),
    ((16,), 4, 0.5, {}),
    ((7, 7), 7, 0.9, {}),  # group 4 of the ResNet: timm drops .93 here, not .1
    ((14, 14), 7, 0.9, {}),  # .093 really; timm .22
    ((14, 14), 7, 0.0, {}),  # the paper's equation still keeps 45 %
    ((7, 7), 3, 0.75, {}),
    ((8, 8), 4, 0.5, {}),
    ((8, 8), 1, 0.9, {}),
    ((17, 17), 16, 0.2, {}),
    ((6, 12), 5, 0.8, {}),  # the authors' detection code takes rows for columns
    ((12, 6), 5, 0.8, {}),
    ((6, 10), (3, 4), 0.7, {}),
    ((12, 5), (2, 4), 0.6, {}),
    ((5, 9), 7, 0.7, {}),
    ((6, 6), 7, 0.9, {}),  # block = side + 1: NaN in KerasCV
    ((4, 5, 6), 3, 0.8, {}),
    ((4, 4, 4), (2, 1, 3), 0.6, {}),
    ((14, 14), 7, 0.5, {"gamma_rule": "exact"}),
    ((9, 6), 4, 0.1, {"gamma_rule": "exact"}),
    ((9, 9), 3, 0.8, {"shared_mask": True}),
    ((8, 6), (4, 3), 0.3, {"shared_mask": True, "gamma_rule": "exact"}),
]
# One compiled function over the whole range of a schedule and beyond.
SCHEDULE = [1.0, 0.9999, 0.95, 0.6, 0.3, 0.05, 0.0]
SCHEDULED = [((8, 8), 3), ((6,), 1)]
# Maps so small that every pattern of seeds can be written down.
TINY = [((4,), 2), ((6,), 3), ((3, 3), 2), ((2, 2, 3), (1, 2, 2))]
# The cells of a [2, 3] example that are dropped together.
BASELINES = [
    (dropout, [[0], [1], [2], [3], [4], [5]]),
    (spatial_dropout, [[0, 3], [1, 4], [2, 5]]),
    (drop_path, [[0, 1, 2, 3, 4, 5]]),
]
COUNTS = (
    sum(math.prod(spatial) + 1 for spatial, *_ in CASES)
    + 2 * len(SCHEDULE) * sum(math.prod(spatial) for spatial, _ in SCHEDULED)
    + sum(2 ** math.prod(spatial) for spatial, _ in TINY)
    + 2 * 16**2  # pairs of maps of 4 cells: of channels, of examples
    + 2**6 * len(BASELINES)
)
TAIL = 1e-6 / (2 * len(draws.FORMS) * COUNTS)


@pytest.fixture
def agree(reference):
    return functools.partial(reference.agree, tail=TAIL)


def patterns(bits):
    """Each row of bools, `[n, cells]`, as the number that it spells."""
    return bits @ (1 << np.arange(bits.shape[1]))


def law(probability, groups, cells):
    """P(pattern kept) where each group of cells is dropped independently with `probability`."""
    exact = np.zeros(2**cells)
    for drawn in itertools.product([False, True], repeat=len(groups)):
        kept = np.ones((1, cells), bool)
        for group, drop in zip(groups, drawn, strict=True):
            kept[0, group] &= not drop
        hits = sum(drawn)
        exact[patterns(kept)] += probability**hits * (1 - probability) ** (len(groups) - hits)
    return exact


@pytest.mark.parametrize("case", range(len(CASES)), ids=lambda case: str(CASES[case]))
def test_every_position_is_kept_as_often_as_it_should_be(agree, reference, case):
    spatial, block, keep_prob, options = CASES[case]
    # A shared mask has one map an example.
    shape = (MAPS, *spatial, 2) if "shared_mask" in options else (EXAMPLES, *spatial, CHANNELS)
    mask = np.asarray(draw(jax.random.key(case), shape, keep_prob, block, **options))
    mask = np.moveaxis(mask, -1, 1).reshape(MAPS, *spatial)

    coverage = reference.coverage(spatial, block)
    if options.get("gamma_rule") == "exact":
        gamma = block_gamma(keep_prob, spatial, block, gamma_rule="exact")
        assert np.mean((1 - gamma) ** coverage) == pytest.approx(keep_prob)
    else:
        gamma = reference.paper_gamma(keep_prob, spatial, block)
    agree(mask.sum(0), (1 - gamma) ** coverage, MAPS)
    # A map is kept whole if and only if none of its legal positions is a seed.
    sides = zip(spatial, reference.clamp(block, spatial), strict=True)
    legal = math.prod(size - side + 1 for size, side in sides)
    agree([mask.reshape(MAPS, -1).all(1).sum()], [(1 - gamma) ** legal], MAPS)


@pytest.mark.parametrize("rule", ["paper", "exact"])
@pytest.mark.parametrize("spatial, block", SCHEDULED)
def test_every_position_along_a_schedule(agree, reference, key, spatial, block, rule):
    shape = (EXAMPLES, *spatial, CHANNELS)
    traced = jax.jit(
        lambda key, keep_prob: dropblock_mask(key, shape, keep_prob, block, gamma_rule=rule)
    )
    coverage = reference.coverage(spatial, block)
    for keep_prob in SCHEDULE:
        mask = np.moveaxis(np.asarray(traced(key, keep_prob)), -1, 1).reshape(MAPS, *spatial)
        gamma = block_gamma(keep_prob, spatial, block, gamma_rule=rule)
        agree(mask.sum(0), (1 - gamma) ** coverage, MAPS)
    assert traced._cache_size() == 1


@pytest.mark.parametrize("spatial, block", TINY)
def test_joint_law_of_a_whole_map(agree, reference, key, spatial, block):
    cells, keep_prob = math.prod(spatial), 0.6
    mask = np.asarray(draw(key, (EXAMPLES, *spatial, CHANNELS), keep_prob, block))
    counts = np.bincount(
        patterns(np.moveaxis(mask, -1, 1).reshape(MAPS, cells)), minlength=2**cells
    )
    index = np.arange(cells).reshape(spatial)
    groups = [index[cells].ravel() for cells in reference.blocks(block, spatial)]
    agree(counts, law(reference.paper_gamma(keep_prob, spatial, block), groups, cells), MAPS)


@pytest.mark.parametrize("neighbours", ["channels", "examples"])
def test_maps_are_independent(agree, reference, key, neighbours):
    spatial, block, keep_prob, cells = (4,), 2, 0.6, 4
    shape = (MAPS, *spatial, 2) if neighbours == "channels" else (2 * MAPS, *spatial, 1)
    mask = np.asarray(draw(key, shape, keep_prob, block))
    pair = np.moveaxis(mask, -1, 1).reshape(MAPS, 2, cells)
    counts = np.bincount(patterns(pair[:, 0]) * 2**cells + patterns(pair[:, 1]), minlength=4**cells)
    gamma = reference.paper_gamma(keep_prob, spatial, block)
    one = law(gamma, [[0, 1], [1, 2], [2, 3]], cells)
    agree(counts, np.outer(one, one).ravel(), MAPS)


@pytest.mark.parametrize(
    "drop, groups", BASELINES, ids=lambda value: getattr(value, "__name__", "")
)
def test_joint_law_of_the_baselines(agree, key, drop, groups):
    # [MAPS, 2, 3]: cells for dropout, channels for SpatialDropout, examples for DropPath.
    kept = np.asarray(jax.jit(drop)(key, np.ones((MAPS, 2, 3), np.float32), 0.7)) > 0
    counts = np.bincount(patterns(kept.reshape(MAPS, 6)), minlength=2**6)
    agree(counts, law(0.3, groups, 6), MAPS)
