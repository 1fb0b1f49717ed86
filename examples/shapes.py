"""The images that the examples learn: five shapes, a little turned, somewhere, in noise."""

import numpy as np

NAMES = ("disc", "ring", "square", "triangle", "cross")
SIDE = 24


def shapes(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws `count` images, float32 `[count, 24, 24, 1]`, and their labels, int32 `[count]`."""
    rng = np.random.default_rng(seed)

    def draw(low, high):
        return rng.uniform(low, high, (count, 1, 1))

    labels = rng.integers(len(NAMES), size=count).astype(np.int32)
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    y, x, radius, turn = y - draw(8, 16), x - draw(8, 16), draw(5, 8), draw(-0.3, 0.3)
    along, across = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
    far = np.hypot(x, y) / radius
    far_square = np.maximum(abs(along), abs(across)) / radius
    leaning = np.sqrt(3) / 2 * abs(across)
    inside = [
        far < 0.9,
        (far > 0.55) & (far < 1),
        far_square < 0.8,
        np.maximum(leaning + along / 2, -along) / radius < 0.55,
        (np.minimum(abs(along), abs(across)) / radius < 0.3) & (far_square < 1),
    ]
    images = draw(0.6, 1.0) * np.choose(labels[:, None, None], inside)
    images += rng.normal(0, 0.2, images.shape)
    return images[..., None].astype(np.float32), labels
