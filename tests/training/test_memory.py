"""XLA's plan of a program's memory."""

import jax
import jax.numpy as jnp

from training import memory


def test_the_peak_is_of_arguments_temporaries_and_outputs_that_are_no_arguments():
    x = jax.ShapeDtypeStruct((1024,), jnp.float32)

    def peak(function, **options):
        return memory.peak_bytes(jax.jit(function, **options).lower(x).compile())

    assert peak(lambda x: x + 1) == 2 * 4096
    assert peak(lambda x: x + 1, donate_argnums=0) == 4096
    square = peak(lambda x: jnp.sin(x[:, None] + jnp.ones((1, 1024))) @ x)
    assert 2 * 4096 + 4 * 1024**2 <= square < 2 * 4096 + 12 * 1024**2
