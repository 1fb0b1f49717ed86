"""DropBlock (Ghiasi, Lin, Le, NeurIPS 2018) for JAX: pure functions that need jax alone.

`dropblock.nnx` and `dropblock.linen` hold the Flax modules; `dropblock.checks` says what the
arguments must be, for code that passes them on.
"""

from dropblock.baselines import drop_path, dropout, spatial_dropout
from dropblock.gamma import block_gamma, expected_keep
from dropblock.op import dropblock, dropblock_mask
from dropblock.schedule import keep_prob_schedule

__version__ = "0.1.0"

__all__ = [
    "block_gamma",
    "drop_path",
    "dropblock",
    "dropblock_mask",
    "dropout",
    "expected_keep",
    "keep_prob_schedule",
    "spatial_dropout",
]
