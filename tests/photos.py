"""Images for tests of what reads them."""

import io

import numpy as np
from PIL import Image


def photo(height=24, width=32, seed=0):
    """A smooth colour image, which survives JPEG: uint8 `[height, width, 3]`."""
    small = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
    resized = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized)


def encoded(image, kind="JPEG", **kwargs):
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, kind, **kwargs)
    return buffer.getvalue()
