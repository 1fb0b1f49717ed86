"""The module `dropblock.linen.DropBlock` in a Flax Linen network, with the rng "dropblock".

    python examples/linen_network.py

It prints

    train=True: two keys differ
    train=False needs no key: test accuracy 0.900
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from shapes import shapes

from dropblock.linen import DropBlock


class Network(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.relu(nn.Conv(16, (3, 3), strides=2)(x))
        x = nn.relu(nn.Conv(32, (3, 3))(x))
        x = DropBlock(0.8, block_size=5, deterministic=not train)(x)
        x = nn.relu(nn.Conv(64, (3, 3), strides=2)(x))
        return nn.Dense(5)(x.mean((1, 2)))


model = Network()
optimizer = optax.adam(3e-3)


@jax.jit
def train_step(params, opt_state, images, labels, key):
    def loss(params):
        logits = model.apply(params, images, train=True, rngs={"dropblock": key})
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state)
    return optax.apply_updates(params, updates), opt_state


def main(steps: int = 300):
    images, labels = shapes(seed=0, count=2000)
    test_images, test_labels = shapes(seed=1, count=1000)
    root = jax.random.key(0)
    params = jax.jit(model.init, static_argnames="train")(root, images[:1], train=False)
    opt_state, rng = optimizer.init(params), np.random.default_rng(0)
    for step in range(steps):
        batch = rng.integers(len(images), size=64)
        key = jax.random.fold_in(root, step)
        params, opt_state = train_step(params, opt_state, images[batch], labels[batch], key)

    apply = jax.jit(model.apply, static_argnames="train")
    dropping, again = (
        apply(params, test_images, train=True, rngs={"dropblock": key})
        for key in jax.random.split(root)
    )
    differ = "differ" if jnp.any(dropping != again) else "are the same"
    accuracy = (apply(params, test_images, train=False).argmax(-1) == test_labels).mean()
    print(f"train=True: two keys {differ}")
    print(f"train=False needs no key: test accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
