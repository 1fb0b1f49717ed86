"""What the layers of one network have in common: BatchNorm's constants, dtype, and platform."""

import dataclasses
import functools
from typing import Any

import jax
from flax import nnx

from models import convolution

# TensorFlow 1's variance_scaling_initializer() defaults, not He's scale of 2.
_CONV_INIT = nnx.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")


@dataclasses.dataclass(frozen=True)
class Norm:
    """BatchNorm's constants.

    Attributes:
      momentum: of the running statistics.
      epsilon: added to the variance.
      group_size: consecutive examples of a training batch whose statistics are taken together; it
        divides the batch, or is larger. 0 is the whole batch. A group on one device costs no
        communication, and no statistics depend on the number of devices.
    """

    momentum: float
    epsilon: float
    group_size: int = 0


@dataclasses.dataclass(frozen=True)
class Layers:
    """Makes a network's layers.

    Attributes:
      norm: BatchNorm's constants.
      dtype: of the computation; parameters and BN statistics are float32.
      platform: where the network will run, "cpu", "gpu" or "tpu": some layers have a form that is
        quick there. None takes XLA's own; "any" all of them, of which a program takes that of the
        machine it is lowered for or runs on. It is what the devices say, not what this process
        runs on: a program can be made for machines that are elsewhere.
      rngs: the stream `params`.
    """

    norm: Norm
    dtype: Any
    platform: str | None
    rngs: Any

    def conv(
        self,
        inputs: int,
        outputs: int,
        size: tuple[int, int],
        stride: int | tuple[int, int] = 1,
        **options,
    ) -> nnx.Conv:
        """A convolution; `options` as `nnx.Conv` has them."""
        return nnx.Conv(
            inputs,
            outputs,
            size,
            stride,
            conv_general_dilated=convolution.quick_on(self.platform),
            dtype=self.dtype,
            rngs=self.rngs,
            **options,
        )

    def batch_norm(self, channels: int, *, zero_scale: bool = False) -> nnx.BatchNorm:
        """BatchNorm of so many channels, its scale starting at 1 or at 0."""
        return BatchNorm(
            channels,
            group_size=self.norm.group_size,
            momentum=self.norm.momentum,
            epsilon=self.norm.epsilon,
            scale_init=nnx.initializers.zeros if zero_scale else nnx.initializers.ones,
            dtype=self.dtype,
            rngs=self.rngs,
        )


class BatchNorm(nnx.BatchNorm):
    """`nnx.BatchNorm` with statistics of groups of examples, see `Norm.group_size`.

    The running statistics take the mean of the groups'.
    """

    def __init__(self, channels: int, *, group_size: int, **options):
        super().__init__(channels, **options)
        self.group_size = group_size

    def __call__(self, x, use_running_average):
        if use_running_average:
            return super().__call__(x, use_running_average)
        group = self.group_size
        if not 0 < group < len(x):
            group = len(x)
        if len(x) % group:
            raise ValueError(f"a batch of {len(x)} cannot be cut into groups of {group}")
        y, mean, var = _normalize_groups(*nnx.split(self), x, group)
        # Not `[...] =`, which asks a tracer for its sharding, and the refusal is slow to word.
        self.mean.set_value(mean)
        self.var.set_value(var)
        return y


# Traced once for all maps that are alike. Not inline, ResNet-50 has 10 % more cycles on a TPU,
# by its compiler.
@functools.partial(jax.jit, static_argnames=("graphdef", "group"), inline=True)
def _normalize_groups(graphdef, state, x, group):
    """`x` normalized by groups of so many examples, and what the running statistics become."""

    def of_one(x):
        norm = nnx.merge(graphdef, state, copy=True)
        return nnx.BatchNorm.__call__(norm, x, False), norm.mean[...], norm.var[...]

    if group == len(x):
        return of_one(x)
    y, mean, var = jax.vmap(of_one)(x.reshape(-1, group, *x.shape[1:]))
    return y.reshape(x.shape), mean.mean(0), var.mean(0)


class ConvNorm(nnx.Module):
    """Convolution without bias, then BatchNorm, as the authors' ResNet has them."""

    def __init__(self, inputs, outputs, size, stride=1, *, zero_scale=False, layers):
        # A strided convolution pads as much on either side whatever the input's size, where
        # SAME would pad an even input more at its end.
        padding = "SAME" if stride == 1 else [((size - 1) // 2, size // 2)] * 2
        self.conv = layers.conv(
            inputs,
            outputs,
            (size, size),
            stride,
            padding=padding,
            use_bias=False,
            kernel_init=_CONV_INIT,
        )
        self.norm = layers.batch_norm(outputs, zero_scale=zero_scale)

    def __call__(self, x, train):
        return self.norm(self.conv(x), use_running_average=not train)
