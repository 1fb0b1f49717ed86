"""What the layers of one network have in common: BatchNorm's constants, dtype, and platform."""

import dataclasses
from typing import Any

from flax import nnx

from models import convolution


@dataclasses.dataclass(frozen=True)
class Norm:
    """BatchNorm's constants: momentum of the running statistics, and epsilon."""

    momentum: float
    epsilon: float


@dataclasses.dataclass(frozen=True)
class Layers:
    """Makes a network's layers.

    Attributes:
      norm: BatchNorm's constants.
      dtype: of the computation; parameters and BN statistics are float32.
      platform: where the network will run, "cpu", "gpu" or "tpu": some layers have a form that is
        quick there. None takes XLA's own. It is what the devices say, not what this process runs
        on: a program can be made for machines that are elsewhere.
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
        return nnx.BatchNorm(
            channels,
            momentum=self.norm.momentum,
            epsilon=self.norm.epsilon,
            scale_init=nnx.initializers.zeros if zero_scale else nnx.initializers.ones,
            dtype=self.dtype,
            rngs=self.rngs,
        )
