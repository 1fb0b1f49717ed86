"""Encoded bytes to arrays: the one image decoder that every source uses."""

import contextlib
import io
import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image, UnidentifiedImageError

# Named, so that a file which calls itself .jpg cannot reach Pillow's rarer readers (EPS runs
# ghostscript).
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
Image.init()  # loads Pillow's plugins here, not in a race between the threads that read
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class DataError(ValueError):
    """Bad data, not a bug: one sentence that names the thing and says what would be right."""


def read_image(path: str, channels: int = 3) -> np.ndarray:
    """Reads an image file to uint8 `[height, width, channels]`; see `decode_image`."""
    return decode_image(read_bytes(path), path, channels)


def read_bytes(path: str) -> bytes:
    """Reads a whole file.

    Raises:
      DataError: it is not there or not readable.
    """
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}): make it readable or remove it."
        ) from error


def decode_image(encoded: bytes, name: str, channels: int = 3) -> np.ndarray:
    """Decodes an image file's bytes to uint8 `[height, width, channels]`.

    Gray, palette, RGBA, CMYK and 16-bit images are converted to `channels` (1, 3 or 4). Pixels
    come as they are stored: an EXIF rotation is ignored, or boxes and masks would not fit.

    Raises:
      DataError: `encoded` is no image, or is cut short; the message names it as `name`.
    """
    with _opened(encoded, name) as image:
        image.load()
        if image.mode.startswith("I;16"):  # Pillow would clip 16 bits at 255, not scale them
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        elif image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")  # straight to RGB, Pillow warns of lost alpha
        if image.mode != _MODES[channels]:
            image = image.convert(_MODES[channels])
        return np.array(image).reshape(image.height, image.width, channels)


def decode_mask(encoded: bytes, name: str) -> np.ndarray:
    """Decodes a mask of class indices, gray or palette, to integers or bool `[height, width]`.

    A palette's colours are for the eye: its indices are the classes.

    Raises:
      DataError: as `decode_image`; also where pixels are colours, from which nothing tells the
        class.
    """
    with _opened(encoded, name) as image:
        if image.mode not in ("P", "L", "1", "I", "I;16", "I;16B"):
            raise DataError(
                f"{name} is a colour image ({image.mode}), where a mask has a class index in each"
                " pixel: write it as a gray or palette PNG."
            )
        return np.array(image)


def image_size(encoded: bytes | str, name: str) -> tuple[int, int]:
    """Height and width, from the head of an image file, given by its bytes or its path.

    Raises:
      DataError: it is no image.
    """
    with _opened(encoded, name) as image:
        return image.height, image.width


@contextlib.contextmanager
def _opened(encoded: bytes | str, name: str) -> Iterator[Image.Image]:
    """Opens an image, and says in our words what fails in Pillow's readers, then or later."""
    if not encoded:
        raise DataError(_unreadable(name, "it is empty"))
    try:
        source = encoded if isinstance(encoded, str) else io.BytesIO(encoded)
        with Image.open(source, formats=_FORMATS) as image:
            yield image
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(_unreadable(name, "it is no image")) from None
    # What Pillow's readers raise for damaged bytes.
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise DataError(_unreadable(name, str(error))) from error
    except Image.DecompressionBombError as error:
        raise DataError(_unreadable(name, str(error))) from error


def _unreadable(name: str, reason: str) -> str:
    return f"{name} cannot be decoded ({reason}): replace it, remove it, or set on_error to 'skip'."
