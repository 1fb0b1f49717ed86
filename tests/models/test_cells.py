"""The cells of AmoebaNet: their tables, the authors' constants, and each operation by hand."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.amoebanet import NORM
from models.cell_tables import CELLS, Table
from models.cells import Cell, FactorizedReduction, Feature, Kernel, Stage
from models.drop import Drop, Sites
from models.layers import Layers


def layers():
    return Layers(NORM, jnp.float32, "cpu", nnx.Rngs(params=0))


def test_initialisers_are_tensorflows():
    depthwise = Kernel((3, 3), 512, depthwise=True)
    stage = Stage(512, [depthwise, Kernel((1, 1), 256)], site=None, layers=layers())
    per_channel, pointwise = (np.asarray(conv.kernel[...]) for conv in stage.convs)
    # Fan-out of a depthwise kernel is 9 in TensorFlow, where it is [3, 3, channels, 1].
    assert per_channel.std() == pytest.approx((2 / 9) ** 0.5, rel=0.03)
    assert pointwise.std() == pytest.approx((2 / 256) ** 0.5, rel=0.02)
    assert np.abs(pointwise).max() == pytest.approx(2 / 0.87962566 * (2 / 256) ** 0.5, rel=0.02)
    assert all(conv.bias is None for conv in stage.convs)
    assert (stage.norm.momentum, stage.norm.epsilon) == (0.9, 1e-5)


def norm(x):
    """BatchNorm of a batch, with the scale and offset it starts with."""
    x = np.asarray(x, np.float64)
    return (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)


def relu(x):
    return np.maximum(x, 0)


def pool(x, kind):
    """3x3 at stride 1, SAME; what is padded does not count."""
    height, width = x.shape[1:3]
    out = np.empty_like(x)
    for i in range(height):
        for j in range(width):
            under = x[:, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
            out[:, i, j] = under.max((1, 2)) if kind == "max" else under.mean((1, 2))
    return out


def convolve(x, kernel):
    """At stride 1, SAME; a depthwise kernel has one input channel."""
    height, width = x.shape[1:3]
    (rows, columns), last = kernel.shape[:2], kernel.shape[2:]
    padded = np.pad(x, ((0, 0), (rows // 2,) * 2, (columns // 2,) * 2, (0, 0)))
    out = 0
    for i in range(rows):
        for j in range(columns):
            part = padded[:, i : i + height, j : j + width]
            out = out + (part * kernel[i, j, 0] if last[0] == 1 else part @ kernel[i, j])
    return out


def literal_stages(params, x):
    """ReLU, convolutions and norm of each stage, from its parameters."""
    for stage in params:
        x = relu(x)
        for conv in stage["convs"].values():
            x = convolve(x, np.asarray(conv["kernel"], np.float64))
        x = norm(x)
    return x


def test_the_normal_cell_of_b_is_its_table_by_hand():
    @jax.jit
    def run(current, previous):
        features = Feature(12, 0), Feature(6, 0)
        options = {"name": "cell", "sites": Sites(Drop()), "layers": layers()}
        cell = Cell(CELLS["B"].normal, 8, 1, *features, **options)
        assert cell.output == (32, 0)
        return cell(current, previous, True, 1.0, None)[0], nnx.to_pure_dict(
            nnx.state(cell, nnx.Param)
        )

    random = np.random.default_rng(0)
    current, previous = (random.normal(size=(2, 6, 5, channels)) for channels in (12, 6))
    got, params = run(current.astype(np.float32), previous.astype(np.float32))

    def operation(name, x):
        return literal_stages(params["operations"][name]["stages"].values(), x)

    h0, h1 = literal_stages([params["h0"]], current), literal_stages([params["h1"]], previous)
    h2 = operation("h2_left", h1) + pool(h1, "max")
    h3 = h1 + operation("h3_right", h0)
    h4 = operation("h4_left", h1) + operation("h4_right", h0)
    h5 = operation("h5_left", h2) + h2
    h6 = pool(h1, "avg") + operation("h6_right", h5)
    expected = np.concatenate([h0, h3, h4, h6], -1)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("size", [7, 8])
def test_factorized_reduction_by_hand(size):
    layer = FactorizedReduction(3, 5, relu=True, site=None, layers=layers())
    x = np.random.default_rng(0).normal(size=(2, size, size, 3))
    got, _ = layer(jnp.asarray(x, jnp.float32), True, 1.0, None)
    kernels = [np.asarray(conv.kernel[0, 0], np.float64) for conv in layer.convs]
    assert [kernel.shape for kernel in kernels] == [(3, 2), (3, 3)]
    x = relu(x)
    half = -(-size // 2)
    shifted = np.zeros((2, half, half, 3))
    beside = x[:, 1::2, 1::2]
    shifted[:, : beside.shape[1], : beside.shape[2]] = beside
    literal = norm(np.concatenate([x[:, ::2, ::2] @ kernels[0], shifted @ kernels[1]], -1))
    np.testing.assert_allclose(got, literal, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("sums", "used", "message"),
    [
        (("1x1 @1 + conv @0",), "0 0 0", "no operation 'conv'"),
        (("1x1 @2 + none @0",), "0 0 0", "h2 = .* takes h2, which comes after"),
        (("1x1 + none @0",), "0 0 0", "operation @state"),
        (("1x1 @1 + none @0",), "0 0", "used must have 0 or 1 for 3 states, got '0 0'"),
        (("1x1 @1 + none @0",), "1 1 1", "leave a state to the output"),
    ],
)
def test_wrong_tables_are_refused(sums, used, message):
    with pytest.raises(ValueError, match=message):
        Table(sums, used)


def test_the_tables_are_those_of_the_documentation():
    """Cell by cell, as docs/paper.md section 4 prints them."""
    text = (pathlib.Path(__file__).parents[2] / "docs" / "paper.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| h")]
    columns = ["B.normal", "B.reduction", "A.normal", "A.reduction", "D.normal", "D.reduction"]
    for number, row in enumerate(row for row in rows if row[0] in ("h2", "h3", "h4", "h5", "h6")):
        for column, cell in zip(columns, row[1:], strict=True):
            name, kind = column.split(".")
            assert getattr(CELLS[name], kind).sums[number] == cell, (column, row[0])
