"""Scheduled DropBlock in an optax loop: keep_prob falls from 1 to 0.8, in one compiled step.

    python examples/schedule.py

It prints

    step 0: keep_prob 1.000, of a map 1.000 is kept on average
    step 100: keep_prob 0.933, of a map 0.936 is kept on average
    step 200: keep_prob 0.867, of a map 0.878 is kept on average
    step 299: keep_prob 0.801, of a map 0.825 is kept on average
    test accuracy 0.928
"""

import numpy as np
import optax
from flax import nnx
from nnx_network import Network
from shapes import shapes

from dropblock import block_gamma, expected_keep, keep_prob_schedule


class Scheduled(Network):
    def __call__(self, x, keep_prob=1.0):
        x = nnx.relu(self.conv1(x))
        x = self.drop(nnx.relu(self.norm(self.conv2(x))), keep_prob=keep_prob)
        x = nnx.relu(self.conv3(x))
        return self.head(x.mean((1, 2)))


def main(steps: int = 300):
    images, labels = shapes(seed=0, count=2000)
    model = Scheduled(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(3e-3), wrt=nnx.Param)
    keep_prob_at = keep_prob_schedule(0.8, num_steps=steps)

    @nnx.jit
    def train_step(model, optimizer, images, labels):
        # The optimizer counts the steps, so that a run that is gone on with has the right one.
        keep_prob = keep_prob_at(optimizer.step[...])

        def loss(model):
            logits = model(images, keep_prob)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        optimizer.update(model, nnx.grad(loss)(model))
        return keep_prob

    rng = np.random.default_rng(0)
    for step in range(steps):
        batch = rng.integers(len(images), size=64)
        keep_prob = train_step(model, optimizer, images[batch], labels[batch])
        if step % (steps // 3) == 0 or step == steps - 1:
            keep = expected_keep(block_gamma(keep_prob, (12, 12), 5), (12, 12), 5)
            print(f"step {step}: keep_prob {keep_prob:.3f}, of a map {keep:.3f} is kept on average")
    model.eval()
    images, labels = shapes(seed=1, count=1000)
    logits = nnx.jit(Scheduled.__call__)(model, images)
    print(f"test accuracy {(logits.argmax(-1) == labels).mean():.3f}")


if __name__ == "__main__":
    main()
