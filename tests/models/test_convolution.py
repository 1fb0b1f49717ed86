"""The forms of convolutions that are quick on a CPU against XLA's own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.convolution import conv_on_cpu, quick_on

_NHWC = ("NHWC", "HWIO", "NHWC")
_CASES = [  # height and width, kernel, stride, padding
    ((2, 2), (3, 3), 1, "SAME"),
    ((2, 2), (3, 3), 1, [(1, 1), (1, 1)]),
    ((4, 4), (3, 3), 2, [(1, 1), (1, 1)]),
    ((4, 3), (3, 3), 2, "SAME"),
    ((1, 1), (3, 3), 1, "SAME"),
    ((2, 1), (3, 2), 1, "SAME"),
    ((5, 4), (4, 3), 1, "VALID"),
    ((3, 3), (7, 7), 2, [(3, 3), (3, 3)]),
    ((6, 5), (1, 1), 1, "SAME"),
    ((6, 5), (1, 1), 2, "SAME"),
    ((6, 5), (1, 1), 2, [(0, 1), (1, 0)]),
]


def _operands(size, kernel):
    lhs, rhs = jax.random.split(jax.random.key(0))
    return jax.random.normal(lhs, (2, *size, 5)), jax.random.normal(rhs, (*kernel, 5, 4))


@pytest.mark.parametrize(("size", "kernel", "stride", "padding"), _CASES)
def test_values_and_gradients_are_xlas(size, kernel, stride, padding):
    lhs, rhs = _operands(size, kernel)

    def run(conv):
        def fn(lhs, rhs):
            return conv(lhs, rhs, (stride, stride), padding, dimension_numbers=_NHWC)

        out, back = jax.vjp(fn, lhs, rhs)
        return out, back(jax.numpy.cos(jax.numpy.arange(out.size).reshape(out.shape) * 1.0))

    ours = jax.jit(functools.partial(run, conv_on_cpu))()
    text = str(jax.make_jaxpr(functools.partial(run, conv_on_cpu))())
    assert "conv_general_dilated" not in text  # else nothing is compared
    expected = jax.jit(functools.partial(run, jax.lax.conv_general_dilated))()
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), ours, expected
    )


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((3, 3), {}),  # what comes out is as large as the kernel
        ((1, 7), {}),
        ((2, 2), {"rhs_dilation": (2, 2)}),
        ((2, 2), {"lhs_dilation": (2, 2)}),
    ],
)
def test_others_are_left_to_xla(size, options):
    lhs, rhs = _operands(size, (3, 3))

    def fn(conv):
        return conv(lhs, rhs, (1, 1), ((1, 1), (1, 1)), dimension_numbers=_NHWC, **options)

    assert "conv_general_dilated" in str(jax.make_jaxpr(lambda: fn(conv_on_cpu))())
    assert (fn(conv_on_cpu) == fn(jax.lax.conv_general_dilated)).all()


def test_grouped_convolutions_are_left_to_xla():
    lhs, rhs = jax.numpy.ones((1, 2, 2, 4)), jax.numpy.ones((3, 3, 2, 4))

    def fn(lhs, rhs):
        return conv_on_cpu(lhs, rhs, (1, 1), "SAME", dimension_numbers=_NHWC, feature_group_count=2)

    assert "conv_general_dilated" in str(jax.make_jaxpr(fn)(lhs, rhs))
    assert fn(lhs, rhs).shape == (1, 2, 2, 4) and (fn(lhs, rhs) == 8).all()


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dtype"),
    [
        ((7, 6), (3, 3), 1, "float32"),
        ((7, 6), (3, 5), 2, "float32"),
        ((2, 1), (3, 3), 1, "bfloat16"),
    ],
)
def test_depthwise_convolutions_are_sums_of_shifted_maps(size, kernel, stride, dtype):
    lhs = jax.random.normal(jax.random.key(0), (2, *size, 4), dtype)
    rhs = jax.random.normal(jax.random.key(1), (*kernel, 1, 4), dtype)

    def run(conv, lhs, rhs):
        def fn(lhs, rhs):
            return conv(
                lhs, rhs, (stride, stride), "SAME", dimension_numbers=_NHWC, feature_group_count=4
            )

        out, back = jax.vjp(fn, lhs, rhs)
        return out, back(jax.numpy.cos(jax.numpy.arange(out.size).reshape(out.shape)).astype(dtype))

    ours = functools.partial(run, conv_on_cpu)
    assert "conv_general_dilated" not in str(jax.make_jaxpr(ours)(lhs, rhs))
    expected = jax.jit(functools.partial(run, jax.lax.conv_general_dilated))(lhs, rhs)
    tolerance = 1e-5 if dtype == "float32" else 0.05
    for a, b in zip(
        jax.tree.leaves(jax.jit(ours)(lhs, rhs)), jax.tree.leaves(expected), strict=True
    ):
        assert a.dtype == b.dtype
        a, b = (np.asarray(value, np.float32) for value in (a, b))
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())


def test_a_dilation_of_one_is_none():
    lhs, rhs = _operands((6, 5), (1, 1))  # nnx.Conv gives one
    conv = functools.partial(
        conv_on_cpu, dimension_numbers=_NHWC, lhs_dilation=(1, 1), rhs_dilation=(1, 1)
    )
    jaxpr = jax.make_jaxpr(lambda: conv(lhs, rhs, (1, 1), "SAME"))()
    assert "conv_general_dilated" not in str(jaxpr)


@pytest.mark.parametrize(("kernel", "groups", "stored"), [((1, 1), 1, 2), ((3, 3), 4, 0)])
def test_what_goes_into_a_product_and_comes_out_is_stored(kernel, groups, stored):
    lhs, rhs = jnp.ones((2, 6, 5, 4)), jnp.ones((*kernel, 4 // groups, 4))
    conv = functools.partial(conv_on_cpu, dimension_numbers=_NHWC, feature_group_count=groups)
    jaxpr = jax.make_jaxpr(lambda: conv(lhs, rhs, (1, 1), "SAME"))()
    assert str(jaxpr).count("= stored") == stored


@pytest.mark.parametrize("platform", ["tpu", "gpu", None])
def test_other_platforms_have_xlas_own(platform):
    assert quick_on("cpu") is conv_on_cpu
    assert quick_on(platform) is jax.lax.conv_general_dilated


def test_a_product_goes_through_every_transformation(key):
    x, kernel = jax.random.normal(key, (4, 4, 4, 3)), jnp.ones((1, 1, 3, 5)) / 3

    def energy(conv, x):
        y = conv(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return (y**3).sum()

    def all_of(conv):
        of = functools.partial(energy, conv)
        return [
            jax.jvp(of, (x,), (x,)),
            jax.vmap(jax.grad(lambda x: of(x[None])))(x),
            jax.hessian(lambda scale: of(scale * x))(1.0),
            jax.grad(lambda x: (jax.grad(jax.checkpoint(of))(x) ** 2).sum())(x),
        ]

    for ours, xla in zip(all_of(conv_on_cpu), all_of(jax.lax.conv_general_dilated), strict=True):
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-5), ours, xla)


@pytest.mark.parametrize(("platform", "convolves"), [("cpu", False), ("tpu", True), ("cuda", True)])
def test_any_is_the_form_of_the_platform_it_is_lowered_for(platform, convolves):
    def fn(lhs, rhs):
        return quick_on("any")(lhs, rhs, (1, 1), "SAME", dimension_numbers=_NHWC)

    traced = jax.jit(fn).trace(*_operands((2, 2), (3, 3)))
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.convolution" in text) == convolves
