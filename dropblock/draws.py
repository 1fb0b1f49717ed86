"""Random bits with any probability, as words (see words.py): their law, and who draws them where.

**The law.** Of every map, each cell of a box is 1 with the same probability, each by itself. What
is drawn for an example depends on the key and on the example's position in the batch alone, so not
on the number of devices. A number for each cell would cost many times the pass over x that the
bits are for; there are two forms that draw fewer:

- "gaps" on a CPU, which is quick where little is done, anywhere in memory (gaps.py);
- "throws" on a TPU, a GPU and anything else, which do the same everywhere at once (throws.py).

Both draw probabilities of at most 1/2: above that, what is 0 is drawn.

A key gives other draws of the one law in the two forms. The form is chosen where the program is
lowered, not where it is traced. docs/mask.md says why there are two.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dropblock import gaps, threefry, throws
from dropblock.words import Cells

FORMS = {"gaps": gaps.draw, "throws": throws.draw}


class Bits(NamedTuple):
    """Which bits are drawn."""

    batch: int
    cells: Cells
    box: tuple[int, ...]  # in which a cell may be 1, from the map's first cell; of whole rows
    channels: int

    @property
    def inside(self) -> np.ndarray:
        """The words with every bit 1 that may be, uint32 `[words]`."""
        return self.cells.box(self.box)


# Compiled by itself where it is called outside jit: op by op its loops take 0.3 s.
@functools.partial(jax.jit, static_argnames=("bits", "typical", "most", "form"))
def bernoulli(
    rng: jax.Array, bits: Bits, probability, *, typical: float, most: float, form: str | None = None
) -> jax.Array:
    """Draws bits that are 1 with `probability`, each by itself.

    Args:
      rng: a JAX key of any implementation.
      bits: which.
      probability: number or scalar array, exact at 0 and 1, resolved to 2^-32.
      typical: the probability to be quick at; the draw does not depend on it.
      most: the probability may not be higher; lower is cheaper.
      form: of FORMS; None is that of the platform.

    Returns:
      uint32 `[batch, words, channels]`, the words up to the last cell of the box.
    """
    probability = jnp.asarray(probability, jnp.float32)
    turned = most > 0.5  # perhaps: what is 1 and what is 0 exchanged
    if turned:
        most, zeros = 0.5, probability > 0.5
        probability = jnp.where(zeros, 1.0 - probability, probability)
    forms = {
        name: functools.partial(draw, bits=bits, typical=typical, most=most)
        for name, draw in FORMS.items()
    }
    key = threefry.key_data(rng)
    if form is None:
        platforms = {"cpu": forms["gaps"], "default": forms["throws"]}
        words = jax.lax.platform_dependent(key, probability, **platforms)
    else:
        words = forms[form](key, probability)
    if turned:
        words ^= jnp.where(zeros, bits.inside[None, :, None], jnp.uint32(0))
    return words
