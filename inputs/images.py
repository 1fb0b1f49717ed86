"""Encoded bytes to arrays: the one image decoder that every source uses."""

import io
import struct

import numpy as np
from PIL import Image, UnidentifiedImageError

# Named, so that a file which calls itself .jpg cannot reach Pillow's rarer readers (EPS runs
# ghostscript).
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
Image.init()  # loads Pillow's plugins here, not in a race between the threads that read
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class DataError(ValueError):
    """Bad data, not a bug: one sentence that names the thing and says what would be right."""


def decode_image(encoded: bytes, name: str, channels: int = 3) -> np.ndarray:
    """Decodes an image file's bytes to uint8 `[height, width, channels]`.

    Gray, palette, RGBA, CMYK and 16-bit images are converted to `channels` (1, 3 or 4). Pixels
    come as they are stored: an EXIF rotation is ignored, or boxes and masks would not fit.

    Raises:
      DataError: `encoded` is no image, or is cut short; the message names it as `name`.
    """
    if not encoded:
        raise DataError(_unreadable(name, "it is empty"))
    try:
        with Image.open(io.BytesIO(encoded), formats=_FORMATS) as image:
            image.load()
            if image.mode.startswith("I;16"):  # Pillow would clip 16 bits at 255, not scale them
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            elif image.mode == "P" and "transparency" in image.info:
                image = image.convert("RGBA")  # straight to RGB, Pillow warns of lost alpha
            if image.mode != _MODES[channels]:
                image = image.convert(_MODES[channels])
            return np.array(image).reshape(image.height, image.width, channels)
    except UnidentifiedImageError:
        raise DataError(_unreadable(name, "it is no image")) from None
    # What Pillow's readers raise for damaged bytes.
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise DataError(_unreadable(name, str(error))) from error
    except Image.DecompressionBombError as error:
        raise DataError(_unreadable(name, str(error))) from error


def _unreadable(name: str, reason: str) -> str:
    return f"{name} cannot be decoded ({reason}): replace it, remove it, or set on_error to 'skip'."
