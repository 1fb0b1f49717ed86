"""Convolutions for which XLA has no quick code on a CPU: of tiny maps, 1x1, and depthwise ones."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from dropblock.cpu import store

_NHWC = ("NHWC", "HWIO", "NHWC")


def quick_on(platform: str | None) -> Callable:
    """The form of `jax.lax.conv_general_dilated` for a platform; for `nnx.Conv`'s argument."""
    if platform == "any":
        return _conv_on_any
    return conv_on_cpu if platform == "cpu" else lax.conv_general_dilated


def _conv_on_any(lhs, rhs, *arguments, **options):
    return lax.platform_dependent(
        lhs,
        rhs,
        cpu=lambda *arrays: conv_on_cpu(*arrays, *arguments, **options),
        default=lambda *arrays: lax.conv_general_dilated(*arrays, *arguments, **options),
    )


def conv_on_cpu(
    lhs: jax.Array, rhs: jax.Array, window_strides, padding, *, dimension_numbers, **options
) -> jax.Array:
    """`jax.lax.conv_general_dilated`, but quick on a CPU.

    Where a kernel is larger than a map, XLA exchanges the two, and on a CPU has no quick code for
    what results: a 3x3 convolution of 2x2 maps takes 20 times as long as of 4x4 maps. Such maps,
    those that end a network on small images, are gathered under the kernel and multiplied instead.
    So are all maps under a 1x1 kernel: XLA is slow at the kernel's gradient. A depthwise
    convolution is a sum of shifted maps instead: XLA takes 25 times as long.

    Args:
      lhs: `[batch, height, width, inputs]`.
      rhs: `[height, width, inputs / groups, outputs]`.
      window_strides, padding, dimension_numbers, options: as `jax.lax.conv_general_dilated` has
        them. Other layouts, dilations and groups are left to it.

    Returns:
      `[batch, height, width, outputs]`.
    """
    options |= {"dimension_numbers": dimension_numbers}
    xla = functools.partial(
        lax.conv_general_dilated, window_strides=window_strides, padding=padding, **options
    )
    out, size = jax.eval_shape(xla, lhs, rhs).shape[1:3], rhs.shape[:2]
    layouts = {
        lax.conv_dimension_numbers(lhs.shape, rhs.shape, d) for d in (dimension_numbers, _NHWC)
    }
    dilations = [*(options.get("lhs_dilation") or ()), *(options.get("rhs_dilation") or ())]
    plain = len(layouts) == 1 and set(dilations) <= {1}
    groups = options.get("feature_group_count", 1)
    depthwise = groups == lhs.shape[-1] == rhs.shape[-1]
    tiny = all(length < side for length, side in zip(out, size, strict=True))
    product = groups == 1 and (tiny or size == (1, 1))
    if not plain or not (product or depthwise):
        return xla(lhs, rhs)

    lhs = _stored(lhs) if product else lhs
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(lhs.shape[1:3], size, window_strides, padding)
    padded = jnp.pad(lhs, ((0, 0), *padding, (0, 0)))
    down, right = window_strides
    under = [
        padded[:, y::down, x::right][:, : out[0], : out[1]]
        for y in range(size[0])
        for x in range(size[1])
    ]
    if depthwise:
        wide = jnp.promote_types(lhs.dtype, jnp.float32)  # as XLA does, half is added up in float32
        taps = rhs.astype(wide).reshape(-1, 1, 1, 1, rhs.shape[-1])
        products = (x.astype(wide) * tap for x, tap in zip(under, taps, strict=True))
        return functools.reduce(jnp.add, products).astype(lhs.dtype)
    out = lax.dot_general(
        jnp.concatenate(under, axis=-1),
        rhs.reshape(-1, rhs.shape[-1]),
        (((3,), (0,)), ((), ())),
        precision=options.get("precision"),
        preferred_element_type=options.get("preferred_element_type"),
    )
    return _stored(out)


def _stored(x):
    """`x`, written to memory, as its cotangent is.

    A product's kernel's gradient reads both transposed, which is slow enough without what came
    before them, a normalisation or a mask, computed anew for each element.
    """
    return _stored_p.bind(x)


# An identity of which the transpose is one, too; a custom_jvp or custom_vjp has no say in that, or
# rules forward mode out.
_stored_p = Primitive("stored")
_stored_p.def_impl(jax.jit(store))
_stored_p.def_abstract_eval(lambda x: x)
mlir.register_lowering(_stored_p, mlir.lower_fun(store, multiple_results=False))
batching.defvectorized(_stored_p)
ad.deflinear2(_stored_p, lambda cotangent, _: [_stored(cotangent)])
