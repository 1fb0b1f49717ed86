"""Broken label files and descriptions of YOLO's form."""

import math
import random
import re
from pathlib import Path

from fuzz.boxes import Refuse, Truth, box, compare
from fuzz.cases import READ, Case, Wrong
from fuzz.damage import damaged
from inputs.detection_sources import detection_source
from photos import encoded, photo

_SIZE = (30, 40)
_NAMES = ("ant", "bee")
_YAML = "path: ../x\ntrain: images/train\nval: images/val\nnames:\n  0: ant\n  1: bee\n"
_WORDS = (
    *("0", "1", "2", "-1", "0.0", "1.0", "0.5", "1e0", "+1", "1.005", "-0.005", "1.02", "40", "00"),
    *("nan", "inf", "1e400", "1_0", "٣", "0x1", "", "one", "9" * 400, "9" * 5000, "1e-320", "-0"),
    *("\0", "\ufeff", "\x85", "\u2028", ",", "#", "0.5 0.5", "\n", "é", "0,5", "1e-9", ".5", "5."),
)
_TEXTS = (
    *(
        "names: [ant, bee",
        "names: {0: ant, 0: bee}",
        "names: &a [*a]",
        "!!python/name:os.system ''",
    ),
    *("names: !!python/object/apply:os.system [id]", "[" * 5000, "{" * 300, "null", "", "\t", "%"),
    *("names: [ant, bee]\ntrain: ../../../etc", "names: [ant, bee]\ntrain: /etc", "train: [[1]]"),
    *("names: [" + "&b [a, a], " + "*b, " * 500 + "]", "a: " * 500, "names: ant", "- ant", "\0"),
    *(
        "names: [ant, bee]\ntrain: nowhere",
        "names: [ant, bee]\nnc: 9",
        "names: {a: b}",
        "? [a]\n: b",
    ),
)


def labels(rng: random.Random, folder: Path) -> Case:
    """A label file with other words, missing ones or damage, beside one that is whole."""
    texts = {"good": _whole(rng).encode(), "bad": _broken(rng)}
    _write(folder, texts)
    truth = Truth([], [])
    try:
        boxes = {name: _objects(text, truth) for name, text in texts.items()}
    except Refuse:
        truth = None

    def read() -> str:
        def opened():
            source = detection_source("yolo", str(folder), "train")
            if truth is not None:  # the order is mixed
                truth.images = [Path(path).name for path in source.paths]
                truth.boxes = [boxes[Path(path).stem] for path in source.paths]
            return source

        return compare(opened, truth)

    return Case(read, (str(folder / "labels" / "train" / "bad.txt"), f"{folder} train"))


def description(rng: random.Random, folder: Path) -> Case:
    """A data.yaml that is something else, or damaged: refused, or read as text and no more."""
    _write(folder, {"good": _whole(rng).encode()})
    path = folder / "data.yaml"
    text = rng.choice(_TEXTS).encode() if rng.random() < 0.4 else damaged(rng, _YAML.encode())
    path.write_bytes(text)

    def read() -> str:
        source = detection_source("yolo", str(folder), "train")
        if len(source) != 1 or len(source[0]["boxes"]) != sum(source.found.counts):
            raise Wrong(f"{len(source)} images, of the classes {source.class_names}")
        if not all(isinstance(name, str) for name in source.class_names):
            raise Wrong(f"the classes {source.class_names}")
        return READ

    return Case(read, (str(folder),))


def _write(folder: Path, texts: dict[str, bytes]):
    for part in ("images", "labels"):
        (folder / part / "train").mkdir(parents=True)
    for name, text in texts.items():
        (folder / "images" / "train" / f"{name}.png").write_bytes(encoded(photo(*_SIZE), "BMP"))
        (folder / "labels" / "train" / f"{name}.txt").write_bytes(text)
    (folder / "data.yaml").write_text(_YAML)


def _whole(rng: random.Random) -> str:
    lines = []
    for _ in range(rng.randrange(1, 4)):
        count = rng.choice((4, 4, 4, 6, 8))
        values = " ".join(f"{rng.uniform(0.2, 0.8):.4f}" for _ in range(count))
        lines.append(f"{rng.randrange(2)} {values}")
    return "\n".join(lines) + "\n"


def _broken(rng: random.Random) -> bytes:
    text = _whole(rng)
    for _ in range(rng.choice((1, 1, 2))):
        found = rng.choice(list(re.finditer(r"\S+|\s", text)) or [re.match("", text)])
        text = text[: found.start()] + rng.choice(_WORDS) + text[found.end() :]
    data = text.encode(rng.choice(("utf-8", "utf-8", "utf-16", "latin-1")), "replace")
    return damaged(rng, data) if rng.random() < 0.3 else data


def _objects(text: bytes, truth: Truth) -> list[tuple]:
    """What a file says, a line at a time; counts the boxes of no use."""
    boxes = []
    for line in text.decode("utf-8-sig", "replace").splitlines():
        values = [_number(word) for word in line.split()]
        if not values:
            continue
        label, *rest = values
        if label not in (0, 1) or any(not -0.01 <= value <= 1.01 for value in rest):
            raise Refuse
        if len(rest) == 4:
            low = [rest[0] - rest[2] / 2, rest[1] - rest[3] / 2]
            sides = rest[2:]
        elif len(rest) >= 6 and len(rest) % 2 == 0:
            low = [min(rest[0::2]), min(rest[1::2])]
            sides = [max(rest[0::2]) - low[0], max(rest[1::2]) - low[1]]
        else:
            raise Refuse
        x, y, width, height = (
            value * side for value, side in zip((*low, *sides), _SIZE[::-1] * 2, strict=True)
        )
        corners = box(x, y, width, height, _SIZE)
        if corners is None:
            truth.left_out += 1
        else:
            boxes.append((corners, _NAMES[int(label)], False, width * height))
    return boxes


def _number(word: str) -> float:
    if not re.fullmatch(r"[+-]?(\d{1,500}(\.\d*)?|\.\d+)(e[+-]?\d+)?", word, re.ASCII | re.I):
        raise Refuse
    if not math.isfinite(float(word)):
        raise Refuse
    return float(word)
