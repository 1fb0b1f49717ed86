"""Encoded bytes to arrays: the one image decoder that every source uses."""

import contextlib
import dataclasses
import functools
import io
import struct
import zlib
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, UnidentifiedImageError

from inputs.reading import EXAMPLE_BYTES, DataError, open_file, read_file

# Named, so that a file which calls itself .jpg cannot reach Pillow's rarer readers (EPS runs
# ghostscript).
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
Image.init()  # loads Pillow's plugins here, not in a race between the threads that read
# An image of so many takes Pillow and NumPy nearly a gigabyte.
MAX_PIXELS = 2**26
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,  # where warnings are errors
)
_JPEG, _SCAN = b"\xff\xd8", b"\xff\xda"
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
# What shows the pixels upright, by EXIF's orientation.
_TURNS = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels[::-1].swapaxes(0, 1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels[:, ::-1].swapaxes(0, 1),
}


def read_image(path: str, channels: int = 3, *, upright: bool = False) -> np.ndarray:
    """Reads an image file to uint8 `[height, width, channels]`; see `decode_image`."""
    return decode_image(read_file(path), path, channels, upright=upright)


def decode_image(
    encoded: bytes, name: str, channels: int = 3, *, upright: bool = False
) -> np.ndarray:
    """Decodes an image file's bytes to uint8 `[height, width, channels]`.

    Gray, palette, RGBA, CMYK and 16-bit images are converted to `channels` (1, 3 or 4). Pixels
    come as they are stored, or with `upright` as EXIF's orientation has them shown: not where boxes
    or masks are of the stored pixels, as COCO's are.

    Raises:
      DataError: `encoded` is no image, or is cut short; the message names it as `name`.
    """
    pixels = _decoded(encoded, name, channels)
    return _turned(pixels, orientation(encoded, name)) if upright else pixels


def orientation(encoded: bytes | str, name: str) -> int:
    """EXIF's orientation of an image file, given by its bytes or path, from 1, upright, to 8.

    Raises:
      DataError: it is no image.
    """
    # Where it says nothing, as most do not, Pillow need not look.
    if isinstance(encoded, bytes) and not _may_have_exif(encoded):
        return 1
    with _open(encoded, name) as image:
        return _orientation(image)


def _may_have_exif(encoded: bytes) -> bool:
    """False for a JPEG whose segments, as far as the first scan, are well-formed and no EXIF."""
    if encoded[:2] != _JPEG:
        return True
    position = 2
    while (marker := encoded[position : position + 2]) != _SCAN:
        well_formed = marker[:1] == b"\xff" != marker[1:]  # two of these are a filling
        if not well_formed or encoded[position + 4 : position + 8] == b"Exif":
            return True
        position += 2 + int.from_bytes(encoded[position + 2 : position + 4])
    return False


def _orientation(image: Image.Image) -> int:
    if image.format == "TIFF":  # which Pillow turns itself
        return 1
    try:
        found = image.getexif().get(ExifTags.Base.Orientation)
    except _DAMAGED:  # of the picture that says nothing
        return 1
    return found if found in _TURNS else 1


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels `[height, width, ...]` as EXIF's orientation has them shown."""
    return pixels if orientation == 1 else np.ascontiguousarray(_TURNS[orientation](pixels))


def _decoded(encoded: bytes, name: str, channels: int) -> np.ndarray:
    """The pixels as they are stored."""
    if channels == 3 and (pixels := _jpeg(encoded)) is not None:
        return pixels
    with _open(encoded, name) as image:
        image.load()
        _check_sums(image, encoded)
        if image.mode.startswith("I;16"):  # Pillow would clip 16 bits at 255, not scale them
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        elif image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")  # straight to RGB, Pillow warns of lost alpha
        if image.mode != _MODES[channels]:
            image = image.convert(_MODES[channels])
        return np.array(image).reshape(image.height, image.width, channels)


def _jpeg(encoded: bytes, factor: int = 1) -> np.ndarray | None:
    """A JPEG's colours at 1 / `factor` of its size, as Pillow's but sooner.

    None is for all that Pillow has to see: other files, rare colours, and what is damaged.
    """
    try:
        header: Any = simplejpeg.decode_jpeg_header(encoded)
        height, width, colors, _ = header
        if colors not in ("YCbCr", "Gray") or height * width > MAX_PIXELS:
            return None
        least = -(-height // factor), -(-width // factor)
        return simplejpeg.decode_jpeg(encoded, "RGB", min_height=least[0], min_width=least[1])
    except ValueError:
        return None


def _jpeg_size(encoded: bytes) -> tuple[int, int]:
    """Height and width of a JPEG; zeros for all else."""
    with contextlib.suppress(ValueError):
        header: Any = simplejpeg.decode_jpeg_header(encoded)
        return header[:2]
    return 0, 0


@dataclasses.dataclass(frozen=True)
class EncodedImage:
    """An image file's bytes, to be decoded when it is known what of it is needed.

    Attributes:
      encoded: the bytes.
      name: what errors call it.
      channels, upright: as of `decode_image`.
    """

    encoded: bytes
    name: str
    channels: int = 3
    upright: bool = False

    @functools.cached_property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels, from the head of the file; DataError if it is no image."""
        return *image_size(self.encoded, self.name, upright=self.upright), self.channels

    def decode(self) -> np.ndarray:
        """The whole image; see `decode_image`."""
        return decode_image(self.encoded, self.name, self.channels, upright=self.upright)

    def reduced(self, box: tuple[slice, slice], size: int) -> np.ndarray:
        """The rows and columns of `box`, perhaps reduced, but to no less than `size` on a side.

        A JPEG is decoded at a half, a quarter or an eighth, from the low frequencies of its blocks;
        the box is widened to whole pixels of that scale.
        """
        surplus = min(side.stop - side.start for side in box) // size
        factor = next(factor for factor in (8, 4, 2, 1) if factor <= max(surplus, 1))
        if factor > 1 and self.channels == 3:
            pixels = _jpeg(self.encoded, factor)
            if pixels is not None:
                if self.upright:
                    pixels = _turned(pixels, orientation(self.encoded, self.name))
                return pixels[tuple(slice(s.start // factor, -(-s.stop // factor)) for s in box)]
        return self.decode()[box]


def decode_mask(encoded: bytes, name: str, *, colours: bool = False) -> np.ndarray:
    """Decodes a mask of class indices, gray or palette, to integers or bool `[height, width]`.

    A palette's colours are for the eye: its indices are the classes. With `colours` they are what
    counts, as of any colour image: uint32 `red | green << 8 | blue << 16`.

    Raises:
      DataError: as `decode_image`; also where pixels are colours, from which nothing tells the
        class.
    """
    with _open(encoded, name) as image:
        if not colours and image.mode not in ("P", "L", "1", "I", "I;16", "I;16B"):
            raise DataError(
                f"{name} is a colour image ({image.mode}), where a mask has a class index in each"
                " pixel: write it as a gray or palette PNG, or name the colours in"
                " config.data.mask_values."
            )
        _check_sums(image, encoded)
        if not colours:
            return np.array(image)
        pixels = np.array(image.convert("RGBA")).view("<u4")[..., 0]
        return pixels & 0xFFFFFF


def image_size(encoded: bytes | str, name: str, *, upright: bool = False) -> tuple[int, int]:
    """Height and width, from the head of an image file, given by its bytes or its path.

    With `upright` as EXIF's orientation has it shown.

    Raises:
      DataError: it is no image, or too large a one.
    """
    height, width = _jpeg_size(encoded) if isinstance(encoded, bytes) else (0, 0)
    if not 0 < height * width <= MAX_PIXELS:  # Pillow has to see it
        with _open(encoded, name) as image:
            height, width = image.height, image.width
    turned = upright and orientation(encoded, name) >= 5
    return (width, height) if turned else (height, width)


def stored_size(path: str) -> tuple[tuple[int, int], bool]:
    """Height and width of an image file's pixels, and whether EXIF has them shown otherwise.

    Both are from its head: an EXIF that stands behind the pixels is not seen.

    Raises:
      DataError: it is no image, or too large a one.
    """
    with _open(path, path) as image:
        turned = "exif" in image.info and _orientation(image) > 1
        return (image.height, image.width), turned


@contextlib.contextmanager
def _open(encoded: bytes | str, name: str) -> Iterator[Image.Image]:
    """Opens an image, given by its bytes or its path."""
    with contextlib.ExitStack() as stack:
        if isinstance(encoded, str):
            source = stack.enter_context(open_file(encoded, EXAMPLE_BYTES))
        else:
            source = io.BytesIO(encoded)
        yield stack.enter_context(_opened(source, name))


def _check_sums(image: Image.Image, encoded: bytes) -> None:
    """Raises ValueError where a PNG is damaged: Pillow decodes one that may look whole."""
    position, kind = 8, b""
    while image.format == "PNG" and kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", encoded, position)
        start, position = position + 4, position + 12 + length
        if (
            zlib.crc32(encoded[start : position - 4]).to_bytes(4)
            != encoded[position - 4 : position]
        ):
            raise ValueError("its check sums do not agree")


@contextlib.contextmanager
def _opened(source: IO[bytes], name: str) -> Iterator[Image.Image]:
    """Opens an image, and says in our words what fails in Pillow's readers, then or later."""
    try:
        if not source.read(1):
            raise DataError(_unreadable(name, "it is empty"))
        source.seek(0)
        with Image.open(source, formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                size = f"{image.height} x {image.width} pixels, more than {MAX_PIXELS}"
                raise DataError(_unreadable(name, f"it has {size}"))
            yield image
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(_unreadable(name, "it is no image")) from None
    # What Pillow's readers raise for damaged bytes.
    except _DAMAGED as error:
        raise DataError(_unreadable(name, str(error))) from error


def _unreadable(name: str, reason: str) -> str:
    return f"{name} cannot be decoded ({reason}): replace or remove it."
