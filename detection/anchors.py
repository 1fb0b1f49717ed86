"""Anchor boxes of a feature pyramid. Constants: docs/paper.md section 5."""

from collections.abc import Sequence

import numpy as np

# Multipliers of (width, height).
ASPECTS = ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4))
SCALES = 3  # 2^0, 2^(1/3), 2^(2/3)
ANCHOR_SCALE = 4.0  # a level's smallest square anchor in strides: 32 to 512 pixels on levels 3 to 7


def make_anchors(
    height: int,
    width: int,
    *,
    min_level: int = 3,
    max_level: int = 7,
    scales: int = SCALES,
    aspects: Sequence[tuple[float, float]] = ASPECTS,
    anchor_scale: float = ANCHOR_SCALE,
) -> np.ndarray:
    """Anchors of an image, in the order of a detector's outputs.

    A map of level l has stride 2^l; its anchors are centred on its cells. The order is: level,
    then cell, row by row, then scale, then aspect.

    Args:
      height, width: of the image, in pixels.
      min_level, max_level: levels of the pyramid.
      scales: anchors for each octave, a cell's sides being `2^(i / scales)` times the base.
      aspects: multipliers of (width, height).
      anchor_scale: the base side in strides.

    Returns:
      float32 `[anchors, 4]`.

    Raises:
      ValueError: levels out of order, no anchors in a cell, or a size that the strides do not
        divide.
    """
    if not 0 <= min_level <= max_level:
        raise ValueError(
            f"min_level and max_level must be in order and not negative, got {min_level} and "
            f"{max_level}"
        )
    if scales < 1 or not aspects or anchor_scale <= 0:
        raise ValueError(
            "scales, aspects and anchor_scale must leave an anchor in each cell, got "
            f"{scales}, {aspects} and {anchor_scale}"
        )
    stride = 2**max_level
    for name, size in (("height", height), ("width", width)):
        if size < 1 or size % stride:
            raise ValueError(
                f"the image's {name} must be a multiple of {stride}, the stride of level "
                f"{max_level}, got {size}"
            )

    octaves = np.repeat(2.0 ** (np.arange(scales) / scales), len(aspects))
    multipliers = np.tile(np.asarray(aspects, np.float64)[:, ::-1], (scales, 1))
    sides = octaves[:, None] * multipliers  # (height, width) of each anchor of a cell
    levels = []
    for level in range(min_level, max_level + 1):
        stride = 2**level
        rows, columns = (
            np.arange(size // stride) * stride + stride / 2 for size in (height, width)
        )
        centres = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)[..., None, :]
        half = anchor_scale * stride * sides / 2
        levels.append(np.concatenate([centres - half, centres + half], axis=-1).reshape(-1, 4))
    return np.concatenate(levels).astype(np.float32)
