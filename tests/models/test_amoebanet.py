"""AmoebaNet: published sizes, drop sites, remat, and what is refused."""

import functools
import math

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.amoebanet import NORM, AmoebaNet
from models.cell_tables import CELLS, Cells, Table
from models.cells import Cell, Feature
from models.drop import Drop, Sites
from models.layers import Layers

DROP = Drop("dropblock", {"last_half": 1.0}, block_size=3)

# A cell of few operations, so that tests of the skeleton compile in seconds.
LIGHT = Cells(
    Table(("none @1 + 1x1 @0",), used="1 0 0"),
    Table(("1x1 @1 + max_pool_2x2 @0",), used="1 1 0"),
)


def make(cells=LIGHT, cells_per_stack=1, filters=8, classes=10, seed=0, **arguments):
    rngs = nnx.Rngs(params=jax.random.key(seed))
    arguments = {"image_size": 32, "stem": "small", "stem_stride": 2, "platform": "cpu"} | arguments
    return AmoebaNet(cells, cells_per_stack, filters, classes, rngs=rngs, **arguments)


def at_331(cell, cells_per_stack, filters, **arguments):
    arguments = {"aux_head": False, "stem": "imagenet", "platform": "tpu"} | arguments
    return make(CELLS[cell], cells_per_stack, filters, classes=1000, image_size=331, **arguments)


def layers():
    return Layers(NORM, jnp.float32, "cpu", nnx.Rngs(params=0))


def parameters(model):
    return sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))


def multiply_adds(jaxpr):
    """Of all convolutions and matrix products of a jaxpr."""
    total = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "conv_general_dilated":
            kernel = eqn.invars[1].aval.shape  # [height, width, inputs / groups, outputs]
            total += math.prod(eqn.outvars[0].aval.shape) * math.prod(kernel[:3])
        elif eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            inputs = eqn.invars[0].aval.shape
            total += math.prod(eqn.outvars[0].aval.shape) * math.prod(inputs[d] for d in contracted)
        for inner in jax.extend.core.jaxprs_in_params(eqn.params):
            total += multiply_adds(inner)
    return total


@pytest.mark.parametrize(
    ("cell", "cells_per_stack", "filters", "millions", "billions"),
    [
        ("B", 6, 256, 141.7, 37.9),
        pytest.param("A", 6, 190, 86.7, 23.1, marks=pytest.mark.slow),
        pytest.param("B", 6, 512, 557.3, None, marks=pytest.mark.slow),
    ],
)
def test_published_sizes(cell, cells_per_stack, filters, millions, billions):
    counted = []

    def forward(x):
        model = at_331(cell, cells_per_stack, filters)
        counted.append(parameters(model))
        return model(x, train=False)["logits"]

    jaxpr = jax.make_jaxpr(forward)(jax.ShapeDtypeStruct((1, 331, 331, 3), jnp.float32))
    assert round(counted[0] / 1e6, 1) == millions
    if billions is not None:
        assert round(multiply_adds(jaxpr.jaxpr) / 1e9, 1) == billions


@functools.cache
def traced():
    """What AmoebaNet-B (6, 256) gives in training at 331, by shape."""

    def forward(x, key):
        drop = Drop("dropblock", {"last_half": 1.0}, block_size=11)
        model = at_331("B", 6, 256, aux_head=True, drop=drop, remat="cells", dtype=jnp.bfloat16)
        return model(x, train=True, keep_prob=0.9, rng=key)

    x = jax.ShapeDtypeStruct((2, 331, 331, 3), jnp.float32)
    return jax.eval_shape(forward, x, jax.random.key(0))


def test_output_sizes_of_all_cells_at_331():
    sizes = {"stem": (165, 32), "stem0": (83, 128), "stem1": (42, 256)}
    sizes |= {f"cell{i}": (42, 1024) for i in range(6)} | {"reduction0": (21, 1024)}
    sizes |= {f"cell{i}": (21, 2048) for i in range(6, 12)} | {"reduction1": (11, 2048)}
    sizes |= {f"cell{i}": (11, 4096) for i in range(12, 18)}
    out = traced()
    others = {"logits", "aux_logits", "kept", "sites"}
    assert set(out) == set(sizes) | others
    for name, (size, channels) in sizes.items():
        assert out[name].shape == (2, size, size, channels), name
        assert out[name].dtype == jnp.bfloat16, name
    assert out["logits"].shape == out["aux_logits"].shape == (2, 1000)
    assert out["logits"].dtype == out["aux_logits"].dtype == jnp.float32


def table_sites(table):
    """The names of a cell's BatchNorms and skips, read off its table."""
    norms, skips = ["h0.norm", "h1.norm"], []
    stages = {"1x1": 1, "3x3": 3, "1x7_7x1": 3}
    for number, pair in enumerate(table.operations, start=2):
        for side, (name, _) in zip(("left", "right"), pair, strict=True):
            if name == "none":
                skips.append(f"h{number}.{side}.skip")
            elif "pool" not in name:
                count = stages.get(name) or int(name[-1])  # separable_3x3_2: two of them
                norms += [f"h{number}.{side}.norm{i + 1}" for i in range(count)]
    return norms + skips


def test_drop_sites_are_after_every_norm_and_on_every_skip_of_the_last_half():
    expected = {
        f"last_half.cell{i}.{name}" for i in range(9, 18) for name in table_sites(CELLS["B"].normal)
    }
    expected |= {f"last_half.reduction1.{name}" for name in table_sites(CELLS["B"].reduction)}
    out = traced()
    sites = set(out["kept"]) - {"head"}
    assert sites == expected and len(sites) == 120
    maps = {name: out["sites"][name].map_shape.shape for name in sites}
    assert {size for name, size in maps.items() if "cell9." in name} == {(21, 21)}
    assert {size for name, size in maps.items() if "cell17." in name} == {(11, 11)}
    assert set(maps.values()) == {(21, 21), (11, 11)}
    assert maps["last_half.reduction1.h3.right.norm1"] == (21, 21)  # before its stride
    assert maps["last_half.reduction1.h3.right.norm2"] == (11, 11)
    assert all(kept.shape == (2,) for kept in out["kept"].values())


def test_paths_are_dropped_after_every_operation_but_none():
    """As ScheduledDropPath does."""
    drop = Drop("drop_path", {"first_half": 1.0, "last_half": 1.0})

    def sites(x, key):
        return make(CELLS["B"], drop=drop)(x, train=True, rng=key)["kept"]

    x = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    found = set(jax.eval_shape(sites, x, jax.random.key(0))) - {"head"}
    # Of the ten operations of each of the five cells, two are none.
    assert len(found) == 5 * 8 and "last_half.cell2.h6.right.path" in found
    assert not any(name.startswith("last_half.cell2.h3.left") for name in found)


@pytest.mark.parametrize(
    ("cells_per_stack", "last"),
    [
        (1, ["cell2"]),
        (2, ["cell3", "reduction1", "cell4", "cell5"]),
        (3, ["cell5", "reduction1", "cell6", "cell7", "cell8"]),
    ],
)
def test_the_last_half_of_the_normal_cells_and_what_stands_between_them(cells_per_stack, last):
    model = nnx.eval_shape(lambda: make(cells_per_stack=cells_per_stack, drop=DROP))
    found = [name for name in model.order if model.cells[name].h0.site is not None]
    assert found == last


def test_an_unused_input_of_a_reduction_cell_is_reduced_before_it_is_concatenated():
    cells = Cells(LIGHT.normal, Table(LIGHT.reduction.sums, used="0 1 0"))
    x = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    out = jax.eval_shape(lambda x: make(cells)(x, train=False), x)
    assert out["reduction0"].shape == (2, 8, 8, 2 * 16)


@functools.cache
def trained(remat):
    """Output, gradients and new statistics of one training step of a small network."""

    @jax.jit
    def run(x, key):
        # 20 pixels leave the auxiliary head 5.
        drop = Drop("dropblock", {"last_half.cell2.h0": 1.0}, block_size=3)
        model = make(remat=remat, drop=drop, image_size=20)
        graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)

        def loss(params):
            model = nnx.merge(graphdef, params, stats, copy=True)
            out = model(x, train=True, keep_prob=0.6, rng=key)
            total = (out["logits"] ** 2).sum() + (out["aux_logits"] ** 2).sum()
            return total, (out, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))

        grads, (out, new_stats) = jax.grad(loss, has_aux=True)(params)
        return out, nnx.to_pure_dict(grads), new_stats

    return run(jax.random.normal(jax.random.key(1), (4, 20, 20, 3)), jax.random.key(0))


def same(tree, other):
    """Equal but for the order of sums, which small batches make visible."""
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3 * max(np.abs(b).max(), 1e-2))


def test_a_cell_under_remat_draws_the_same_masks_again(key):
    drop = Drop("dropblock", {"cell": 1.0}, block_size=3)

    def run(transform, remat=False):
        @jax.jit
        def gradients(x, key):
            feature = Feature(3, 0)
            options = {"name": "cell", "sites": Sites(drop), "layers": layers(), "remat": remat}
            cell = Cell(LIGHT.normal, 4, 1, feature, feature, **options)
            graphdef, params, stats = nnx.split(cell, nnx.Param, nnx.BatchStat)

            def loss(params):
                cell = nnx.merge(graphdef, params, stats, copy=True)
                call = transform(Cell.__call__)
                out, reports = call(cell, x, x, True, 0.6, key)
                kept = {name: report.kept for name, report in reports.items()}
                return (out**2).sum(), (out, kept, nnx.state(cell, nnx.BatchStat))

            return jax.grad(loss, has_aux=True)(params)

        return gradients(jax.random.normal(jax.random.key(1), (8, 6, 6, 3)), key)

    plain = run(lambda f: f)
    kept = plain[1][1]
    assert len(kept) == 4 and all(float(k.min()) < 1 for k in kept.values())
    for operations in (False, True):
        remat = run(functools.partial(nnx.remat, static_argnums=3), operations)
        jax.tree.map(np.testing.assert_array_equal, kept, remat[1][1])
        same(plain, remat)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cells", "operations"])
def test_remat_changes_nothing_but_memory(kind):
    plain, remat = trained("none"), trained(kind)
    kept = plain[0]["kept"]
    jax.tree.map(np.testing.assert_array_equal, kept, remat[0]["kept"])
    for place in ("head", "last_half."):  # or nothing is compared
        assert min(float(k.min()) for name, k in kept.items() if name.startswith(place)) < 1
    same(plain, remat)


def test_every_parameter_has_a_gradient_and_every_norm_is_updated():
    _, grads, stats = trained("none")
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert jnp.isfinite(grad).all() and (grad != 0).any(), jax.tree_util.keystr(path)
    for path, value in jax.tree_util.tree_leaves_with_path(stats):
        start = 1 if path[-1].key == "var" else 0
        assert (value != start).any(), jax.tree_util.keystr(path)


@pytest.mark.parametrize(
    "model",
    [
        {"drop": DROP, "head_keep_prob": 1.0},
        {},  # the head's dropout would be silently off
    ],
)
def test_training_that_should_drop_needs_a_key(model):
    x = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    with pytest.raises(ValueError, match="rng must be a JAX key"):
        jax.eval_shape(lambda x: make(**model)(x, train=True), x)
    jax.eval_shape(lambda x: make(head_keep_prob=1.0)(x, train=True), x)  # nothing to drop


def test_dropping_in_eval_mode(key):
    """Drops if and only if a key is given; BatchNorm keeps its statistics."""

    @jax.jit
    def run(x, key):
        model = make(drop=DROP, head_keep_prob=0.25)
        before = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
        plain = model(x, train=False)
        dropped = model(x, train=False, keep_prob=0.6, rng=key)
        return before, plain, dropped, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

    x = jax.random.normal(jax.random.key(1), (4, 32, 32, 3))
    before, plain, dropped, after = run(x, key)
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert plain["kept"] == {} and "aux_logits" not in dropped
    np.testing.assert_array_equal(plain["cell1"], dropped["cell1"])  # of the first half
    assert (plain["cell2"] != dropped["cell2"]).any()
    kept = dropped["kept"]
    assert len(kept) == 1 + 4  # the head; in cell2 two inputs, one convolution, one skip
    assert all(float(k.min()) < 1 for k in kept.values())
    assert dropped["sites"]["head"].expected == pytest.approx(0.25)
    assert 0.1 < float(kept["head"].mean()) < 0.45


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stem": "tiny"}, "stem.*'tiny'"),
        ({"filters": 3}, "filters must be at least 4, got 3"),
        ({"cells_per_stack": 0}, "cells_per_stack.*0"),
        ({"stem_stride": 0}, "stem_stride.*0"),
        ({"head_keep_prob": 1.5}, "head_keep_prob.*1.5"),
        ({"stem_stride": 4}, "auxiliary head needs a map of at least 5 x 5, got 4 x 4"),
        ({"drop": Drop("dropblock", {"group4": 1.0})}, "group4.*first_half, last_half"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        nnx.eval_shape(lambda: make(**arguments))
