"""What XLA's CPU compiler does not do by itself."""

import jax
import jax.numpy as jnp
import numpy as np


def store(x: jax.Array) -> jax.Array:
    """`x`, written to memory, real or unsigned.

    The compiler would else compute it again for each element that it is read for. It drops barriers
    before it fuses, but never fuses a reduction over windows; here each has one element.
    """
    least = np.array(-np.inf if jnp.issubdtype(x.dtype, jnp.floating) else 0, x.dtype)
    window, padding = (2, *(1,) * x.ndim), [(1, 0)] + [(0, 0)] * x.ndim
    return jax.lax.reduce_window(x[None], least, jax.lax.max, window, (1,) * len(window), padding)[
        0
    ]
