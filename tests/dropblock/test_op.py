"""What one call computes, against literal numpy versions of the paper's and the authors' rules."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dropblock import draws, dropblock, dropblock_mask
from dropblock.op import dropblock_expecting

NORMALIZE = ("batch", "sample", "map", None)
STATIC = ("block_size", "shared_mask", "gamma_rule", "normalize", "return_kept")

# Compiled whole: op by op, JAX spends seconds on every new shape.
op = jax.jit(dropblock, static_argnames=STATIC)
draw = jax.jit(dropblock_mask, static_argnames=("shape", *STATIC[:3]))


@functools.partial(jax.jit, static_argnames=STATIC)
def every_normalize(rng, x, keep_prob, block_size, **options):
    """The mask, and (y, kept) under each of NORMALIZE: one compile instead of five."""
    mask = dropblock_mask(rng, x.shape, keep_prob, block_size, **options)
    return mask, [
        dropblock(rng, x, keep_prob, block_size, normalize=how, return_kept=True, **options)
        for how in NORMALIZE
    ]


def at_keep_prob(keep_prob, traced):
    """`every_normalize` with keep_prob traced, or as the number it is."""
    if traced:
        return functools.partial(every_normalize, keep_prob=keep_prob)
    call = functools.partial(every_normalize.__wrapped__, keep_prob=keep_prob)
    return jax.jit(call, static_argnames=STATIC)


# 1, 2 and 3 spatial axes; not square; odd, even, one side an axis, larger than the map.
SHAPES = [
    ((3, 11, 2), 3),
    ((3, 8, 8, 4), 3),
    ((2, 9, 6, 3), 4),
    ((3, 6, 10, 2), (5, 2)),
    ((2, 5, 9, 3), 7),
    ((2, 4, 5, 6, 2), (2, 3, 2)),
]


def features(shape, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(17), shape, dtype)


def dropped_maps(mask):
    """What is dropped, `[maps, *spatial]`."""
    dropped = np.moveaxis(~np.asarray(mask), -1, 1)
    return dropped.reshape(-1, *dropped.shape[2:])


# The shape of what is dropped ---------------------------------------------------------------


@given(
    maps=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 10)), min_size=1, max_size=3),
    keep_prob=st.floats(0.05, 0.95),
    shared_mask=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None, derandomize=True, max_examples=12)
def test_dropped_is_a_union_of_whole_blocks(reference, maps, keep_prob, shared_mask, seed):
    spatial, block = zip(*maps, strict=True)
    shape = (3, *spatial, 2)
    mask = draw(jax.random.key(seed), shape, keep_prob, block, shared_mask=shared_mask)
    assert mask.dtype == bool
    assert mask.shape == (*shape[:-1], 1 if shared_mask else 2)
    block = reference.clamp(block, spatial)
    for dropped in dropped_maps(mask):
        np.testing.assert_array_equal(reference.opening(dropped, block), dropped)


@pytest.mark.parametrize(
    "spatial, block",
    [
        ((10,), 4),
        ((10, 10), 5),
        ((8, 8), 2),
        ((9, 12), 4),
        ((7, 7), 6),
        ((7, 9), (4, 3)),
        ((6, 6), 6),
        ((6, 6), 7),
        ((5, 9), 8),
        ((4, 6, 5), (2, 3, 4)),
    ],
)
def test_same_seeds_give_the_mask_of_the_authors(reference, monkeypatch, spatial, block):
    # Their noise covers the map; ours only the legal seeds b // 2 <= s < W - (b - 1) // 2. Theirs
    # decides on which side of a seed an even block has its extra cell.
    shape = (2, *spatial, 3)
    random = np.random.default_rng(0).random(shape)
    legal = tuple(
        slice(b // 2, size - (b - 1) // 2)
        for b, size in zip(reference.clamp(block, spatial), spatial, strict=True)
    )

    @jax.jit
    def mask_of(seeds):
        def bernoulli(rng, bits, probability, **options):
            assert (bits.batch, *bits.box, bits.channels) == seeds.shape
            words = jnp.zeros((bits.batch, bits.cells.words(bits.box), bits.channels), jnp.uint32)
            for index in np.ndindex(bits.box):
                word, bit = divmod(bits.cells.bit(index), bits.cells.bits)
                seed = seeds[(slice(None), *index)].astype(jnp.uint32)
                words = words.at[:, word].add(seed << bit)
            return words

        monkeypatch.setattr(draws, "bernoulli", bernoulli)
        return dropblock_mask(jax.random.key(0), shape, 0.9, block)

    for density in (0.03, 0.3):
        noise = random < density
        mask = np.asarray(mask_of(noise[(slice(None), *legal)]))
        for n, c in np.ndindex(2, 3):
            authors = reference.authors_mask(noise[n, ..., c], block)
            np.testing.assert_array_equal(mask[n, ..., c], authors)


def test_it_is_on(key):
    # A mask of all ones is the commonest bug of all (iantimmis, jaxnn, MetaOptNet#41): at 14x14,
    # block 7 and keep_prob .9, 256 maps without a seed have probability (1 - .00625)^16384.
    x = jnp.ones((4, 14, 14, 64))
    y, kept = op(key, x, 0.9, 7, return_kept=True)
    assert 0.85 < float(jnp.mean(y > 0)) < 0.95
    assert (kept < 1).all()
    assert (y[y > 0] > 1).all()


# Scaling ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape, block", SHAPES)
def test_normalize_against_numpy(reference, key, shape, block):
    x = features(shape)
    mask, outputs = every_normalize(key, x, 0.6, block, shared_mask=len(shape) % 2 == 1)
    mask = np.asarray(mask)
    assert 0 < mask.mean() < 1
    for how, (y, kept) in zip(NORMALIZE, outputs, strict=True):
        np.testing.assert_allclose(
            y, reference.normalised(x, mask, how), rtol=1e-6, atol=1e-7, err_msg=str(how)
        )
        assert kept.shape == shape[:1] and kept.dtype == jnp.float32
        np.testing.assert_allclose(kept, mask.reshape(shape[0], -1).mean(1), rtol=1e-6)


def test_the_default_is_the_mean_over_the_batch_of_a_mask_for_each_channel(key):
    x = features((3, 8, 8, 4))
    spelled = {"shared_mask": False, "gamma_rule": "paper", "normalize": "batch"}
    np.testing.assert_array_equal(op(key, x, 0.7, 3), op(key, x, 0.7, 3, **spelled))


def test_mean_is_preserved_where_something_is_kept(key):
    _, outputs = every_normalize(key, jnp.ones((3, 8, 8, 4)), 0.8, 3)
    batch, sample, each_map, none = (np.asarray(y, np.float64) for y, _ in outputs)
    np.testing.assert_allclose(batch.mean(), 1.0, rtol=1e-6)
    np.testing.assert_allclose(sample.mean((1, 2, 3)), 1.0, rtol=1e-6)
    np.testing.assert_allclose(each_map.mean((1, 2)), 1.0, rtol=1e-6)
    assert set(np.unique(none)) == {0.0, 1.0}


def test_all_dropped_is_zero_not_nan():
    # One map that block 7 fills: a draw drops it whole or not at all, as at 7x7 in the paper.
    x = features((1, 7, 7, 1))
    outcomes = set()
    for n in range(20):
        _, outputs = every_normalize(jax.random.key(n), x, 0.3, 7)
        for y, kept in outputs:
            np.testing.assert_array_equal(y, x * kept[0])
            outcomes.add(float(kept[0]))
    assert outcomes == {0.0, 1.0}


def test_gradient_where_all_is_dropped_is_zero_not_nan(key):
    # A scale of 1 / 0 would hide in the output, since nothing is kept, and show here as 0 * inf.
    def loss(x):
        _, outputs = every_normalize(key, x, 0.0, 3, gamma_rule="exact")
        return jnp.stack([y.sum() for y, _ in outputs])

    np.testing.assert_array_equal(jax.jacrev(loss)(features((3, 8, 8, 4))), 0)


@pytest.mark.parametrize("traced", [False, True])
def test_exact_rule_keeps_nothing_at_keep_prob_zero(key, traced):
    x = features((3, 8, 8, 4)).at[0, 0, 0, 0].set(jnp.inf)
    _, outputs = at_keep_prob(0.0, traced)(key, x, block_size=3, gamma_rule="exact")
    for y, kept in outputs:
        np.testing.assert_array_equal(y, 0)
        np.testing.assert_array_equal(kept, 0)


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("rule", ["paper", "exact"])
def test_keep_prob_one_is_the_identity(key, rule, traced):
    x = features((3, 8, 8, 4))
    x = x.at[0, 0].set(jnp.inf).at[1, 1].set(jnp.nan).at[1, 2].set(-jnp.inf)
    _, outputs = at_keep_prob(1.0, traced)(key, x, block_size=3, gamma_rule=rule)
    for y, kept in outputs:
        np.testing.assert_array_equal(y, x)
        np.testing.assert_array_equal(kept, 1)


# n * (1 / n) is not 1 in float32 for n = 41, 47, 55, 61, ..., and XLA turns a division by a
# constant into a product: batches and maps of such sizes would leave the identity by a bit.
def test_keep_prob_one_is_the_identity_at_awkward_sizes(optimised_jit, key):
    inputs = [features(shape) for shape in ((41, 4, 2), (2, 41, 1))]

    @optimised_jit
    def call(keep_prob):
        return [every_normalize.__wrapped__(key, x, keep_prob, 3)[1] for x in inputs]

    for x, outputs in zip(inputs, call(1.0), strict=True):
        for how, (y, kept) in zip(NORMALIZE, outputs, strict=True):
            np.testing.assert_array_equal(y, x, err_msg=f"{x.shape} {how}")
            np.testing.assert_array_equal(kept, 1)


# Precision ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype, examples", [("float16", 64), ("bfloat16", 16)])
def test_half_precision_of_a_large_batch_is_unbiased(optimised_jit, key, dtype, examples):
    # 32 Mi elements in float16, 64 MB. A count in float16 overflows beyond 65,504 and zeroes the
    # map (torchvision), one in bfloat16 sticks at 256, and a scale rounded to bfloat16 is off by
    # up to 2^-8.
    shape, keep_prob = (examples, 64, 128, 64), 0.913
    x = jnp.broadcast_to((1 + jnp.arange(64) / 64).astype(dtype), shape)
    call = optimised_jit(functools.partial(dropblock, block_size=7, return_kept=True))
    y, kept = call(key, x, keep_prob)
    assert y.dtype == x.dtype and y.shape == shape
    scale = 1 / float(kept.mean())
    rounded = float(jnp.asarray(scale, jnp.bfloat16))
    assert abs(rounded / scale - 1) > 2e-3  # so that a rounded scale would be seen here
    # Which channels happen to keep more gives the ratio a standard error of 1e-4 (16 examples),
    # rounding of the 64 different products to bfloat16 one of 3e-4.
    mean_x, mean_y = (float(jnp.mean(array, dtype=jnp.float32)) for array in (x, y))
    assert abs(mean_y / mean_x - 1) < 1.2e-3


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_dtype_is_kept_and_rounded_once(key, dtype):
    x = features((3, 8, 8, 4)).astype(dtype)
    _, outputs = every_normalize(key, x, 0.7, 3)
    _, wide = every_normalize(key, x.astype(jnp.float32), 0.7, 3)
    for (y, kept), (wide_y, _) in zip(outputs, wide, strict=True):
        assert y.dtype == x.dtype and kept.dtype == jnp.float32
        once = wide_y.astype(dtype).astype(jnp.float32)
        np.testing.assert_array_equal(y.astype(jnp.float32), once)


def test_float64_keeps_the_mask_of_float32(key):
    x = features((3, 8, 8, 4))
    mask, outputs = every_normalize(key, x, 0.7, 3)
    with jax.enable_x64(True):
        wide_mask, wide = every_normalize(key, jnp.asarray(x, jnp.float64), 0.7, 3)
        np.testing.assert_array_equal(wide_mask, mask)
        for (y, kept), (narrow, _) in zip(wide, outputs, strict=True):
            assert y.dtype == jnp.float64 and kept.dtype == jnp.float32
            np.testing.assert_allclose(y, narrow, rtol=1e-6)


def test_nan_and_inf_do_not_leak_out_of_dropped_places(key):
    x = features((3, 8, 8, 4))
    mask = draw(key, x.shape, 0.6, 3)

    @jax.jit
    def outputs_and_gradients(x):
        def outputs(x):
            return [y for y, _ in every_normalize(key, x, 0.6, 3)[1]]

        return outputs(x), jax.jacrev(lambda x: jnp.stack([(y**2).sum() for y in outputs(x)]))(x)

    clean = outputs_and_gradients(x)
    for poison in (jnp.nan, jnp.inf, -jnp.inf):
        jax.tree.map(
            np.testing.assert_array_equal,
            outputs_and_gradients(jnp.where(mask, x, poison)),
            clean,
        )
    # XLA on a CPU happens to make a select of x * mask. Other backends need not, so also without.
    with jax.disable_jit():
        for how, y in zip(NORMALIZE, clean[0], strict=True):
            eager = dropblock(key, jnp.where(mask, x, jnp.nan), 0.6, 3, normalize=how)
            np.testing.assert_allclose(eager, y, rtol=1e-6)


def test_a_cpu_grows_words_not_elements(optimised_jit, key):
    # Its compiler would grow a word anew for each of up to 32 elements that read it.
    x, call = jnp.ones((2, 40, 40, 64)), optimised_jit(functools.partial(dropblock, block_size=7))
    assert call.lower(key, x, 0.9).compile().cost_analysis()["flops"] < 10 * x.size


@pytest.mark.parametrize("platform", ["cpu", "tpu", "cuda"])
def test_no_barrier_parts_the_mask_from_what_it_is_fused_with(key, platform):
    gradient = jax.jit(jax.grad(lambda x: dropblock(key, jnp.sin(x), 0.7, 3).sum()))
    lowered = gradient.trace(features((2, 8, 8, 4))).lower(lowering_platforms=(platform,))
    barriers = [line for line in lowered.as_text().splitlines() if "optimization_barrier" in line]
    # A TPU's random words are drawn apart; neither words of a mask (uint8 here) nor x are.
    assert len(barriers) == (platform == "tpu")
    assert all(set(re.findall(r"x([a-z]+\d+)>", line)) == {"ui32"} for line in barriers)


@pytest.mark.parametrize("shared_mask", [False, True])
def test_what_is_to_be_expected_of_a_draw(reference, key, shared_mask):
    spatial, block, channels = (6, 10), (5, 2), 1 if shared_mask else 4
    options = {"shared_mask": shared_mask, "gamma_rule": "paper", "normalize": "batch"}
    x = features((3, *spatial, 4))
    y, kept, expected, seeds = dropblock_expecting(key, x, 0.7, block, **options)
    for ours, same in zip(
        (y, kept), op(key, x, 0.7, block, return_kept=True, **options), strict=True
    ):
        np.testing.assert_allclose(ours, same, rtol=1e-6)
    gamma = reference.paper_gamma(0.7, spatial, block)
    keep = np.mean((1 - gamma) ** reference.coverage(spatial, block))
    np.testing.assert_allclose(expected, keep, rtol=1e-6)
    np.testing.assert_allclose(seeds, gamma * 3 * 2 * 9 * channels, rtol=1e-6)


# What the mask depends on -------------------------------------------------------------------


def test_masks_of_examples_and_channels_differ(key):
    mask = np.asarray(draw(key, (6, 12, 12, 5), 0.7, 3))
    maps = np.moveaxis(mask, -1, 1).reshape(30, -1)
    assert len({row.tobytes() for row in maps}) == 30


def test_shared_mask_is_one_for_all_channels_of_an_example(key):
    x = jnp.ones((6, 12, 12, 5))
    y = np.asarray(op(key, x, 0.7, 3, shared_mask=True, normalize=None))
    np.testing.assert_array_equal(y, np.broadcast_to(y[..., :1], y.shape))
    assert len({row.tobytes() for row in y[..., 0]}) == 6
    mask = draw(key, x.shape, 0.7, 3, shared_mask=True)
    np.testing.assert_array_equal(np.broadcast_to(mask, y.shape), y > 0)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_mask_depends_on_key_and_position_alone(impl):
    key, other = jax.random.key(0, impl=impl), jax.random.key(1, impl=impl)
    whole = draw(key, (8, 10, 10, 2), 0.8, 3)
    np.testing.assert_array_equal(draw(key, (8, 10, 10, 2), 0.8, 3), whole)
    np.testing.assert_array_equal(draw(key, (3, 10, 10, 2), 0.8, 3), whole[:3])
    assert (draw(other, (8, 10, 10, 2), 0.8, 3) != whole).any()
    for x in (jnp.ones(whole.shape), 1 + 100 * jnp.abs(features(whole.shape))):
        y = op(key, x, 0.8, 3)
        np.testing.assert_array_equal(y > 0, whole)


def test_a_traced_keep_prob_that_is_not_a_number_shows(key):
    # A number is refused; an array's value cannot be read, and NaN is above no threshold.
    y, kept = op(key, jnp.ones((2, 8, 8, 4)), jnp.nan * jnp.ones(()), 3, return_kept=True)
    assert np.isnan(kept).all() and np.isnan(y).all()


@pytest.mark.parametrize("rule", ["paper", "exact"])
def test_number_and_traced_keep_prob_draw_the_same(key, rule):
    shape = (4, 10, 10, 3)
    number = dropblock_mask(key, shape, 0.7, 3, gamma_rule=rule)
    # The two gammas differ by a rounding, which moves no seed at this key.
    np.testing.assert_array_equal(draw(key, shape, 0.7, 3, gamma_rule=rule), number)


# Edges --------------------------------------------------------------------------------------


def test_an_empty_batch_stays_empty(key):
    y, kept = dropblock(key, jnp.ones((0, 8, 8, 3)), 0.7, 3, return_kept=True)
    assert y.shape == (0, 8, 8, 3) and kept.shape == (0,)


def test_block_of_one_cell_and_block_of_the_whole_map(key):
    single = np.asarray(draw(key, (2, 10, 10, 3), 0.5, 1))
    assert 0.4 < single.mean() < 0.6
    for block in (10, (11, 64)):
        whole = np.asarray(draw(key, (8, 10, 10, 8), 0.5, block))
        np.testing.assert_array_equal(whole, np.broadcast_to(whole[:, :1, :1], whole.shape))
        assert 0 < whole.mean() < 1
