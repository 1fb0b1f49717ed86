"""Broken lists of a split's names, and slices of splits."""

import random
from pathlib import Path

import numpy as np

from fuzz.cases import READ, Case, Wrong
from fuzz.damage import damaged
from fuzz.pictures import NAMES
from inputs.detection_sources import detection_source
from inputs.segmentation_sources import segmentation_source
from inputs.splits import parse_split, slice_bounds
from photos import encoded

_FILES = ("a", "b b", "ü", "c.d")
_WORDS = (
    *("", " ", "a", "a.png", "A", "../a", "/a", "a/", "a\0b", "\0", "x" * 5000, "..", ".", "a b"),
    *("/images/a.png /masks/a.png", "images/a.png masks/a.png", "/images/a.png /masks/b b.png"),
    *("../out/images/a.png ../out/masks/a.png", "/images/../../out/images/a.png /masks/a.png"),
    *(
        "/images//a.png //masks/a.png",
        "/etc/hostname /etc/hostname",
        "/images/c.d.png /masks/c.d.png",
    ),
    *("b b 1", "c.d -1", "\ufeffa", "a\ta", "\x85a", "a\u2028b", "ü", "u\u0308"),
)


def names(rng: random.Random, folder: Path) -> Case:
    """A list of names, or of pairs of paths, of a mask folder; others lie outside of it."""
    root = folder / "in"
    values = {}
    for number, name in enumerate(_FILES):
        for base, value in ((root, number % 3), (folder / "out", 1)):
            for part in ("images", "masks"):
                (base / part).mkdir(parents=True, exist_ok=True)
                pixels = np.full((4, 5), value, np.uint8)
                (base / part / f"{name}.png").write_bytes(encoded(pixels, "PNG"))
        values[name] = number % 3
    lines = [*_FILES]
    if rng.random() < 0.3:
        lines = [f"/images/{name}.png /masks/{name}.png" for name in ("a", "c.d")]
    for _ in range(rng.choice((1, 1, 2))):
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(_WORDS))
    if rng.random() < 0.3:
        lines = [rng.choice(_WORDS)]
    text = rng.choice(("\n", "\n", "\r\n")).join(lines).encode()
    if rng.random() < 0.3:
        text = damaged(rng, text)
    path = root / "train.txt"
    path.write_bytes(text)

    def read() -> str:
        source = segmentation_source("mask_folder", str(root), "train", class_names=NAMES)
        said = text.decode("utf-8-sig", "surrogateescape").splitlines()
        said = [line.strip() for line in said if line.strip()]
        if len(source) != len(said) or len(set(said)) < len(said):
            raise Wrong(f"{len(source)} examples of {said}")
        for index, line in enumerate(said):
            name = line
            if "/" in line:
                image, mask = line.split()
                if ".." in line.split("/") or Path(image).name != Path(mask).name:
                    raise Wrong(f"{line} is read")
                name = Path(image).stem
            want = values.get(name, values.get(name.removesuffix(".png")))
            if want is None or not (source[index]["mask"] == want).all():
                raise Wrong(f"{line} has {source[index]['mask'][0, 0]}, not {want}")
        return READ

    return Case(read, (str(path), str(root), "'train'"))


def slices(rng: random.Random, folder: Path) -> Case:
    """A slice of a split: of any digits and signs; read as Python would."""
    size = rng.choice((1, 3, 10, 1000))

    def bound() -> str:
        digits = [str(rng.randrange(size + 2)) for _ in range(5)]
        digits += [str(size), "007", "9" * rng.choice((15, 16, 400, 5000))]
        strange = ("", "٣", "1.5", "1e3", " 1", "+1", "1_0", "--1", "-", "%", "nan", "1\0", "²")
        text = rng.choice(("", "", "-")) + rng.choice(digits)
        return rng.choice((text, text, text, f"{text}%", "", rng.choice(strange)))

    form = rng.choice(
        ("{}[{}:{}]",) * 8 + ("{}[{}]", "{}[{}:{}:2]", "{}[{}:{}", "{}{}{}]", "{}[[{}:{}]]")
    )
    name = rng.choice(("train", "train", "va l", "ü", "tr\0in", "", "../x"))
    split = form.format(name, bound(), bound())

    def read() -> str:
        found, selector = parse_split(split)
        start, stop = slice_bounds(split, selector, size)
        inner = split[len(name) + 1 : -1].split(":") if split != name else ["", ""]
        if len(inner) != 2 or found != name or not name or "\0" in name:
            raise Wrong(f"{split!r} is read as {found!r}")
        whole = list(range(size))
        want = whole[slice(*(_position(text, size) for text in inner))]
        if list(range(start, stop)) != want or not want:
            raise Wrong(f"{split!r} of {size} is {start} to {stop}")
        return READ

    return Case(read, (split[:25],) if split.isprintable() else ("split",))


def _position(text: str, size: int) -> int | None:
    """A bound as TFDS rounds it."""
    if not text:
        return None
    number = int(text.removesuffix("%"))
    if not text.isascii() or abs(number) >= 10**15:
        raise Wrong(f"{text} is read")
    value = round(number / 100 * size) if text.endswith("%") else number
    if not -size <= value <= size:
        raise Wrong(f"{text} of {size} is read")
    return value


def voc_list(rng: random.Random, folder: Path) -> Case:
    """A list of the split of a VOC folder, whose annotations are looked for by name."""
    for base in (folder / "in", folder / "out"):
        for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (base / part).mkdir(parents=True)
        for number, name in enumerate(("a", "b", "c.d")):
            box = f"<xmin>1</xmin><ymin>1</ymin><xmax>{5 + number}</xmax><ymax>9</ymax>"
            text = f"<object><name>ant</name><bndbox>{box}</bndbox></object>"
            (base / "Annotations" / f"{name}.xml").write_text(f"<annotation>{text}</annotation>")
            pixels = encoded(np.zeros((10, 20), np.uint8), "PNG")
            (base / "JPEGImages" / f"{name}.png").write_bytes(pixels)
    words = (
        "a",
        "b",
        "c.d",
        "a 1",
        "b -1",
        "../../out/Annotations/a",
        "/a",
        "",
        "\0",
        "a\0",
        *_WORDS,
    )
    text = "\n".join(rng.choice(words) for _ in range(rng.randrange(1, 4))).encode()
    path = folder / "in" / "ImageSets" / "Main" / "train.txt"
    path.write_bytes(damaged(rng, text) if rng.random() < 0.2 else text)

    def read() -> str:
        source = detection_source("voc_xml", str(folder / "in"), "train")
        said = path.read_bytes().decode("utf-8-sig", "surrogateescape").splitlines()
        said = [line.split()[0] for line in said if line.strip()]
        if len(source) != len(said):
            raise Wrong(f"{len(source)} examples of {said}")
        for index, name in enumerate(said):
            width = 5 + ("a", "b", "c.d").index(name)
            if source[index]["boxes"].tolist() != [[1, 1, 9, width]]:
                raise Wrong(f"{name} has {source[index]['boxes']}")
        return READ

    return Case(read, (str(folder / "in"), "'train'"))
