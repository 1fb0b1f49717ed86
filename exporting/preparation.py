"""How a host makes a network's inputs of a photograph, in words and numbers, for predict.json.

These are the evaluation's transforms (`inputs.transforms`, `inputs.joint_transforms`), told; a test
follows what is told here and compares.
"""

from typing import Any

from tasks.base import mean_color

_READ = (
    "Turn the photograph upright, as its EXIF says, and convert it to uint8 [height, width, {}]. "
)
_PYRAMID = (
    "factor = size / max(height, width). Resize to max(1, round(factor * height)) by "
    "max(1, round(factor * width)) with Pillow's BILINEAR filter, which antialiases. Put it in the "
    "upper left corner of a size x size image that is filled with fill. original_size = (height, "
    "width); scale = resized (height, width) / original_size."
)
_CLASSIFIER = {
    "imagenet": (
        "side = int(fraction * min(height, width)), at least 1. Crop the side x side square whose "
        "first row is (height - side + 1) // 2 and whose first column is (width - side + 1) // 2, "
        "and resize it to size x size with Pillow's BICUBIC filter, which antialiases."
    ),
    "inception": (
        "top = int((height - height * fraction) / 2), left = int((width - width * fraction) / 2). "
        "Crop rows top to height - top and columns left to width - left, and resize them to "
        "size x size with Pillow's BILINEAR filter, which antialiases."
    ),
    "small": (
        "Resize it to size x size, whatever its sides, with Pillow's BICUBIC filter, which "
        "antialiases; not where it has that size."
    ),
    "none": "It must be size x size already.",
}


def of_classifier(config) -> dict[str, Any]:
    """Of what `data.augment` says."""
    kind = config.data.augment
    numbers = {"imagenet": {"fraction": 0.875}, "inception": {"fraction": 0.875}}.get(kind, {})
    return _told(config, _CLASSIFIER[kind]) | numbers


def of_pyramid(config) -> dict[str, Any]:
    """Of detectors and segmenters."""
    return _told(config, _PYRAMID) | {"fill": list(mean_color(config.data))}


def _told(config, words: str) -> dict[str, Any]:
    data = config.data
    return {
        "words": _READ.format(data.channels) + words,
        "size": data.image_size,
        "channels": data.channels,
    }
