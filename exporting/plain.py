"""A traced function without the primitives that jax2onnx does not know for batches of any size.

It has no padding of an array whose first axis is symbolic, and makes of a window over maps one of
four axes, which no runtime has. Both are concatenation and slices here.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Literal


def plain(traced: ClosedJaxpr) -> Callable:
    """The function that was traced, on flat arguments and results."""
    return functools.partial(_evaluate, traced.jaxpr, traced.consts)


def _evaluate(jaxpr, consts: Sequence[Any], *arguments) -> list[Any]:
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments], strict=True))

    def value(x):
        return x.val if isinstance(x, Literal) else values[x]

    for eqn in jaxpr.eqns:
        operands = [value(x) for x in eqn.invars]
        name = eqn.primitive.name
        if name in _CALLS:
            inner = eqn.params[_CALLS[name]]
            if isinstance(inner, ClosedJaxpr):
                found = _evaluate(inner.jaxpr, inner.consts, *operands)
            else:
                found = _evaluate(inner, (), *operands)
        elif name in _RULES:
            found = [_RULES[name](*operands, **eqn.params)]
        else:
            found = eqn.primitive.bind(*operands, **eqn.params)
            found = found if eqn.primitive.multiple_results else [found]
        values |= dict(zip(eqn.outvars, found, strict=True))
    return [value(x) for x in jaxpr.outvars]


# Primitives that call what they hold, and where they hold it.
_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}


def _pad(x, fill, *, padding_config):
    for axis, (before, after, inner) in enumerate(padding_config):
        if inner:
            raise NotImplementedError("padding between elements")
        if before < 0 or after < 0:
            raise NotImplementedError("padding that cuts")
        counts = {"before": before, "after": after}
        slabs = {
            side: [jnp.broadcast_to(fill, (*x.shape[:axis], count, *x.shape[axis + 1 :]))]
            for side, count in counts.items()
            if count
        }
        if slabs:
            x = jnp.concatenate([*slabs.get("before", ()), x, *slabs.get("after", ())], axis)
    return x


def _window(combine, fill, x, *, window_dimensions, window_strides, padding, **dilations):
    if any(set(of_axes) != {1} for of_axes in dilations.values() if isinstance(of_axes, tuple)):
        raise NotImplementedError("a window with gaps")
    fill = np.asarray(fill, x.dtype)
    for axis, (size, stride) in enumerate(zip(window_dimensions, window_strides, strict=True)):
        if size == stride == 1:
            continue
        pads = [(0, 0, 0)] * x.ndim
        pads[axis] = (*padding[axis], 0)
        padded = _pad(x, fill, padding_config=pads)
        last = (padded.shape[axis] - size) // stride * stride
        shifted = (
            lax.slice_in_dim(padded, start, start + last + 1, stride, axis) for start in range(size)
        )
        x = functools.reduce(combine, shifted)
    return x


_RULES: dict[str, Callable] = {
    "pad": _pad,
    "reduce_window_max": functools.partial(_window, jnp.maximum, -np.inf),
    "reduce_window_sum": functools.partial(_window, jnp.add, 0),
}
