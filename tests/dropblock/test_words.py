"""Masks as bits, cell by cell."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropblock import words
from dropblock.words import Cells, count, grow, kept_fraction, rows, unpack

# Rows that share a word, fill one, are two, three and more than few.
SHAPES = [(), (5,), (40,), (7, 7), (3, 32), (4, 33), (2, 70), (3, 4, 5), (2, 3, 40), (2, 300)]


def pack(bits):
    """bool `[batch, *spatial, channels]` as words, one bit at a time."""
    cells = Cells(bits.shape[1:-1])
    packed = np.zeros((len(bits), cells.words(cells.shape), bits.shape[-1]), np.uint32)
    for index in np.ndindex(cells.shape):
        word, bit = divmod(cells.bit(index), cells.bits)
        packed[:, word] |= bits[(slice(None), *index)].astype(np.uint32) << np.uint32(bit)
    return packed


def random_bits(seed, *shape):
    return np.random.default_rng(seed).random(shape) < 0.4


@pytest.mark.parametrize("shape", SHAPES)
def test_every_cell_has_a_bit_of_its_own(shape):
    cells = Cells(shape)
    numbers = [cells.bit(index) for index in np.ndindex(shape)]
    assert numbers == sorted(set(numbers))
    # Whole rows: none is cut where it fits.
    for start in range(0, len(numbers), cells.row):
        row = {number // cells.bits for number in numbers[start : start + cells.row]}
        assert len(row) == -(-cells.row // 32)
    assert cells.words(shape) == numbers[-1] // cells.bits + 1


@pytest.mark.parametrize("platform", ["cpu", "tpu", "cuda"])
@pytest.mark.parametrize("shape", SHAPES)
def test_bits_round_trip(monkeypatch, shape, platform):
    def of_platform(*args, default, **forms):
        return forms.get(platform, default)(*args)

    monkeypatch.setattr(jax.lax, "platform_dependent", of_platform)
    bits = random_bits(0, 3, *shape, 4)
    packed = rows(pack(bits), Cells(shape))
    np.testing.assert_array_equal(unpack.__wrapped__(packed, shape), bits)
    cells = tuple(range(1, bits.ndim - 1))
    np.testing.assert_array_equal(count(packed, 1)[:, 0], bits.sum(cells))
    np.testing.assert_array_equal(
        np.asarray(count(packed, (1, 2))).ravel(), bits.sum((*cells, -1)).ravel()
    )


@pytest.mark.parametrize("of_row, few", [(2, True), (words._FEW, True), (words._FEW + 1, False)])
def test_a_tpu_chooses_among_few_words(of_row, few):
    lowered = unpack.trace(np.zeros((1, 2 * of_row, 1), np.uint32), (2, 32 * of_row))
    text = lowered.lower(lowering_platforms=("tpu",)).as_text()
    assert ("stablehlo.select" in text) == few


@pytest.mark.parametrize(
    "row, width", [(1, 1), (8, 1), (9, 2), (16, 2), (17, 4), (33, 8), (65, 12)]
)
def test_a_row_is_kept_in_few_bytes(row, width):
    cells = Cells((3, row))
    assert rows(pack(np.ones((1, 3, row, 1), bool)), cells).nbytes == 3 * width


@pytest.mark.parametrize("shape", SHAPES)
def test_a_box_is_its_cells(shape):
    for part in (0.5, 1):
        box = tuple(max(1, int(size * part)) for size in shape)
        bits = np.zeros((1, *shape, 1), bool)
        bits[(0, *map(slice, box))] = True
        inside = Cells(shape).box(box)
        np.testing.assert_array_equal(inside, pack(bits)[0, : len(inside), 0])
        assert len(inside) == Cells(shape).words(box) and inside[-1]


@pytest.mark.parametrize(
    "spatial, block",
    [
        ((9,), (4,)),
        ((70,), (40,)),
        ((7, 5), (3, 2)),
        ((6, 6), (6, 6)),
        ((5, 8), (1, 8)),
        ((14, 14), (7, 7)),
        ((9, 32), (2, 5)),
        ((4, 40), (3, 7)),
        ((3, 4, 5), (2, 3, 1)),
        ((3, 2, 40), (2, 2, 33)),
    ],
)
def test_every_bit_grows_to_its_block(spatial, block):
    legal = tuple(size - side + 1 for size, side in zip(spatial, block, strict=True))
    seeds = np.zeros((2, *spatial, 20), bool)
    inside = (slice(None), *map(slice, legal))
    seeds[inside] = np.random.default_rng(1).random((2, *legal, 20)) < 0.1
    grown = np.zeros_like(seeds)
    for offset in itertools.product(*map(range, block)):
        cells = tuple(slice(o, o + n) for o, n in zip(offset, legal, strict=True))
        grown[(slice(None), *cells)] |= seeds[inside]
    cells = Cells((*spatial[:-1], legal[-1]))
    packed = pack(seeds[..., : legal[-1], :])[:, : cells.words(legal)]
    out = grow(packed, cells, block)
    np.testing.assert_array_equal(unpack(out, spatial), grown)
    assert count(out, (0, 1, 2)).sum() == grown.sum()  # none beyond the rows


@pytest.mark.parametrize(
    "block, axes", [((1, 1, 3), 0), ((1, 2, 3), 1), ((3, 1, 1), 1), ((2, 3, 1), 2)]
)
@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_a_cpu_stores_what_has_grown_along_an_axis(block, axes, platform):
    cells = Cells((6, 6, 6))
    lowered = grow.trace(np.zeros((1, cells.words(cells.shape), 1), np.uint32), cells, block)
    text = lowered.lower(lowering_platforms=(platform,)).as_text()
    # And, in the end, the rows.
    assert text.count("stablehlo.reduce_window") == (axes + 1 if platform == "cpu" else 0)


def test_kept_fraction_of_all_and_nothing_is_exact():
    for cells in (41, 49, 200_704):
        kept = jax.jit(kept_fraction, static_argnums=1)(jnp.uint32([0, cells]), cells)
        np.testing.assert_array_equal(kept, [1, 0])


def test_kept_fraction_of_a_part():
    for cells in (41, 49, 200_704):
        dropped = np.array([1, cells // 3, cells - 1])
        kept = kept_fraction(jnp.asarray(dropped, jnp.uint32), cells)
        np.testing.assert_allclose(kept, (cells - dropped) / cells, rtol=1e-6)
