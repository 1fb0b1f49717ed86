"""Random bits, one stream for each example."""

import jax
import jax.numpy as jnp


def bernoulli(rng, shape, probability):
    """Draws a bool array `shape` that is True with `probability`.

    The first axis is the batch. Each example has a key of its own, folded from its position, so
    that its draw depends neither on the batch's size nor on how the batch is sharded.

    Integers are compared, not floats in [0, 1): those step by 2^-23, which is more than the
    gamma of a large block on a large map. A probability of 0 or 1 is exact.
    """
    probability = jnp.asarray(probability, jnp.float32)
    # The largest float32 below 2^32: a cast from 2^32 itself would be undefined.
    threshold = jnp.minimum(probability * 2.0**32, 4294967040.0).astype(jnp.uint32)

    def draw(position):
        return jax.random.bits(jax.random.fold_in(rng, position), shape[1:], jnp.uint32)

    return (jax.vmap(draw)(jnp.arange(shape[0])) < threshold) | (probability >= 1.0)
