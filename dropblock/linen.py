"""DropBlock as a Flax Linen module."""

import jax
from flax import linen as nn

from dropblock.op import dropblock


class DropBlock(nn.Module):
    """DropBlock that is used like `nn.Dropout`; the rng collection is named "dropblock".

    Attributes:
      keep_prob: target keep_prob in [0, 1], used where the call gives none.
      block_size: int, or one int for each spatial axis.
      deterministic: if True, the input is returned as it is.
      shared_mask, gamma_rule, normalize: see `dropblock.dropblock`.
    """

    keep_prob: float
    block_size: int | tuple[int, ...]
    deterministic: bool | None = None
    shared_mask: bool = False
    gamma_rule: str = "paper"
    normalize: str | None = "batch"

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        deterministic: bool | None = None,
        rng: jax.Array | None = None,
        *,
        keep_prob=None,
    ) -> jax.Array:
        """Drops blocks of `x`, floating `[batch, *spatial, channels]`.

        Args:
          x: the features.
          deterministic: given here or as the attribute, not both.
          rng: a JAX key; without it one is made from the collection "dropblock".
          keep_prob: number or scalar array in [0, 1]; wins over the attribute (a schedule).

        Returns:
          Features of the shape and dtype of `x`.

        Raises:
          ValueError: an argument out of range; `deterministic` given nowhere or twice.
        """
        if nn.merge_param("deterministic", self.deterministic, deterministic):
            return x
        return dropblock(
            self.make_rng("dropblock") if rng is None else rng,
            x,
            self.keep_prob if keep_prob is None else keep_prob,
            self.block_size,
            shared_mask=self.shared_mask,
            gamma_rule=self.gamma_rule,
            normalize=self.normalize,
        )
