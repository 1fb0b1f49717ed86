"""Broken image files, and masks."""

import io
import random
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fuzz.cases import READ, SKIPPED, Case, Wrong, warnings_of
from fuzz.damage import damaged
from inputs.images import DataError
from inputs.segmentation_sources import segmentation_source
from inputs.sources import classification_source
from photos import encoded, photo

_KINDS = ("PNG", "PNG", "JPEG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
_MODES = ("RGB", "RGB", "L", "RGBA", "P", "1", "LA", "I;16", "CMYK")
NAMES = ("background", "ant", "bee")


def image(rng: random.Random, folder: Path) -> Case:
    """An image of a folder of classes: damaged, of any mode, of a size that its head invents."""
    kind, mode = rng.choice(_KINDS), rng.choice(_MODES)
    pixels = Image.fromarray(photo(rng.randrange(1, 40), rng.randrange(1, 40), rng.randrange(9)))
    try:
        data = encoded(pixels.convert("L") if mode == "I;16" else pixels.convert(mode), kind)
    except (OSError, ValueError):  # a format that has no such mode
        mode, data = "RGB", encoded(pixels, kind)
    whole = data
    if rng.random() < 0.2:
        data = whole = _invented_size(rng, data, kind)
    else:
        data = damaged(rng, data)
    path = folder / "train" / "cat" / rng.choice(("a.jpg", "a.png", "b.JPEG", "c.webp", "d.bmp"))
    path.parent.mkdir(parents=True)
    path.write_bytes(data)

    def read() -> str:
        got = classification_source("image_folder", str(folder), "train")[0]
        found = got["image"]
        if found.dtype != np.uint8 or found.ndim != 3 or found.shape[-1] != 3 or got["label"] != 0:
            raise Wrong(f"{found.dtype} {found.shape} {got['label']}")
        # A PNG has check sums; of the others only the decoder itself can tell.
        with Image.open(io.BytesIO(whole if kind == "PNG" else data)) as want:
            if want.mode == "P" and "transparency" in want.info:
                want = want.convert("RGBA")
            if want.mode.startswith("I;16"):
                want = Image.fromarray((np.asarray(want) >> 8).astype(np.uint8))
            if not np.array_equal(found, np.asarray(want.convert("RGB"))):
                raise Wrong(f"a {kind} of mode {mode} has other pixels")
        return READ

    return Case(read, (str(path),))


def _invented_size(rng: random.Random, data: bytes, kind: str) -> bytes:
    """A head that claims another size, up to what no memory holds; a PNG's check sum is right."""
    size = rng.choice((0, 1, 8192, 16384, 60000, 2**31 - 1, 2**32 - 1))
    other = rng.choice((1, 5, size))
    if kind == "PNG":
        head = b"IHDR" + size.to_bytes(4) + other.to_bytes(4) + data[24:29]
        return data[:12] + head + zlib.crc32(head).to_bytes(4) + data[33:]
    if kind == "BMP":
        return data[:18] + size.to_bytes(4, "little") + other.to_bytes(4, "little") + data[26:]
    if kind == "GIF":
        size, other = size % 65536, other % 65536
        return data[:6] + size.to_bytes(2, "little") + other.to_bytes(2, "little") + data[10:]
    if kind == "JPEG" and (start := data.find(b"\xff\xc0")) > 0:
        size, other = size % 65536, other % 65536
        return data[: start + 5] + size.to_bytes(2) + other.to_bytes(2) + data[start + 9 :]
    return damaged(rng, data)


def mask(rng: random.Random, folder: Path) -> Case:
    """A mask beside two whole ones: damaged, of another mode or size, with other classes."""
    truth = [_mask(rng) for _ in range(3)]
    for number, values in enumerate(truth):
        for name, what in (("images", photo(*values.shape)), ("masks", values)):
            (folder / name).mkdir(exist_ok=True)
            (folder / name / f"{number}.png").write_bytes(encoded(what, "PNG"))
    path = folder / "masks" / "1.png"
    good, way = False, rng.randrange(8)
    values, file = truth[1].copy(), path.read_bytes()
    if way < 3:
        file = damaged(rng, file)
        good = None  # as it comes: the check sums decide
    elif way == 3:
        values[rng.randrange(values.shape[0]), 0] = rng.choice((3, 4, 254))
        file = encoded(values, "PNG")
    elif way == 4:
        values = values.astype(np.uint16)
        if not (good := rng.random() < 0.5):
            values[0, 0] = rng.choice((256, 300, 65535))
        file = encoded(values, "PNG")
    elif way == 5:
        file = encoded(Image.fromarray(values).convert(rng.choice(("RGB", "RGBA", "LA"))), "PNG")
    elif way == 6:
        file = encoded(np.pad(values, ((0, rng.randrange(1, 3)), (0, rng.randrange(3)))), "PNG")
    else:
        palette, good = Image.fromarray(values), True
        palette.putpalette(rng.randbytes(768))
        file = encoded(palette, "PNG")
    path.write_bytes(file)
    (folder / "train.txt").write_text("0\n1\n2\n")
    on_error = rng.choice(("raise", "skip"))

    def read() -> str:
        with warnings_of() as messages:
            source = segmentation_source(
                "mask_folder", str(folder), "train", class_names=NAMES, on_error=on_error
            )
        for number in (0, 2):
            _same(source[number]["mask"], truth[number])
        if any("1 of 3 examples" in message for message in messages):
            with pytest.raises(DataError):
                source[1]
            return SKIPPED
        _same(source[1]["mask"], truth[1])
        if good is False:
            raise Wrong("a mask that is none is read")
        return READ

    return Case(read, (str(path.relative_to(folder)),))


def _mask(rng: random.Random) -> np.ndarray:
    shape = (rng.randrange(2, 30), rng.randrange(2, 30))
    values = np.random.default_rng(rng.randrange(10**6)).choice([0, 1, 2, 255], shape)
    values[0, 0], values[1, 1] = 1, 2
    return values.astype(np.uint8)


def _same(found: np.ndarray, want: np.ndarray) -> None:
    if not np.array_equal(found, want):
        raise Wrong("a mask has other classes than were written")
