"""DropBlock as a Flax NNX module."""

from typing import Any

import jax
from flax import nnx

from dropblock import checks
from dropblock.gamma import GAMMA_RULES
from dropblock.op import NORMALIZE, dropblock


class DropBlock(nnx.Module):
    """DropBlock that is used like `nnx.Dropout`; the stream is named "dropblock".

    `model.eval()`, `model.train()` and `nnx.view(model, deterministic=...)` switch it;
    `deterministic=False` at inference is Monte-Carlo DropBlock, and the paper's Figure 5.

    Attributes:
      keep_prob: target keep_prob in [0, 1], used where the call gives none.
      block_size: int, or one int for each spatial axis.
      deterministic: if True, the input is returned as it is.
      shared_mask, gamma_rule, normalize: see `dropblock.dropblock`.

    Raises:
      ValueError: an argument out of range, here or in the call.
    """

    def __init__(
        self,
        keep_prob: float,
        block_size: int | tuple[int, ...],
        *,
        deterministic: bool | None = False,
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        shared_mask: bool = False,
        gamma_rule: str = "paper",
        normalize: str | None = "batch",
    ):
        checks.probability("keep_prob", keep_prob)
        checks.block_size(block_size)
        checks.choice("gamma_rule", gamma_rule, GAMMA_RULES)
        checks.choice("normalize", normalize, NORMALIZE)
        self.keep_prob = keep_prob
        self.block_size = tuple(block_size) if isinstance(block_size, list) else block_size
        self.deterministic = deterministic
        self.shared_mask = shared_mask
        self.gamma_rule = gamma_rule
        self.normalize = normalize
        # Forked as nnx.Dropout does it: modules that share `rngs` still draw apart.
        stream = rngs["dropblock"] if isinstance(rngs, nnx.Rngs) else rngs
        self.rngs = nnx.data(None if stream is None else stream.fork())

    def __call__(
        self,
        x: jax.Array,
        *,
        keep_prob=None,
        deterministic: bool | None = None,
        rngs: nnx.Rngs | nnx.RngStream | jax.Array | None = None,
    ) -> jax.Array:
        """Drops blocks of `x`, floating `[batch, *spatial, channels]`.

        Args:
          x: the features.
          keep_prob: number or scalar array in [0, 1]; wins over the attribute (a schedule).
          deterministic: wins over the attribute.
          rngs: a key, a stream or `nnx.Rngs`; wins over the constructor's.

        Returns:
          Features of the shape and dtype of `x`.

        Raises:
          ValueError: neither the call nor the constructor says `deterministic`, or there is no
            source of randomness.
        """
        if deterministic is None:
            deterministic = self.deterministic
        if deterministic is None:
            raise ValueError("deterministic must be given to DropBlock's constructor or call")
        if deterministic:
            return x
        source: Any = self.rngs if rngs is None else rngs
        if isinstance(source, nnx.Rngs):
            source = source["dropblock"]
        return dropblock(
            source() if isinstance(source, nnx.RngStream) else source,
            x,
            self.keep_prob if keep_prob is None else keep_prob,
            self.block_size,
            shared_mask=self.shared_mask,
            gamma_rule=self.gamma_rule,
            normalize=self.normalize,
        )

    def set_view(self, deterministic: bool | None = None):
        """Class method used by `nnx.view`.

        Args:
          deterministic: if True, nothing is dropped.
        """
        if deterministic is not None:
            self.deterministic = deterministic
