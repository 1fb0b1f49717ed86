"""Broken COCO json, in an image folder that is whole."""

import json
import math
import os
import random
import unicodedata
from pathlib import Path
from typing import Any

from fuzz.boxes import Refuse, Truth, box, compare, number
from fuzz.cases import Case
from fuzz.damage import damaged, mutated
from inputs.detection_sources import detection_source
from photos import encoded, photo

SIZES = {"a.png": (30, 40), "b c.png": (20, 25), "sub/c.png": (40, 30)}


def coco(rng: random.Random, folder: Path) -> Case:
    """A COCO json with damage to its bytes or its values."""
    for name, size in SIZES.items():
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "images" / name).write_bytes(encoded(photo(*size), "BMP"))
    path = folder / "annotations" / "instances_train.json"
    path.parent.mkdir()
    tree = _whole(rng)
    text = mutated(rng, tree).encode()
    if rng.random() < 0.2:
        text = damaged(rng, json.dumps(tree).encode())
    path.write_bytes(text)
    try:
        truth = _truth(text)
    except Refuse:
        truth = None

    def read() -> str:
        return compare(lambda: detection_source("coco_json", str(folder), "train"), truth)

    return Case(read, (str(path), str(folder / "images")))


def _whole(rng: random.Random) -> dict:
    images = [
        {"id": id, "file_name": name, "height": height, "width": width}
        for id, (name, (height, width)) in zip((5, 0, 9), SIZES.items(), strict=True)
    ]
    annotations = [
        {
            "id": number,
            "image_id": rng.choice((5, 0, 9)),
            "category_id": rng.choice((1, 3)),
            "bbox": [rng.randrange(20), rng.uniform(0, 9), rng.randrange(1, 30), 7.5],
            "area": rng.choice((1, 10.5, None)),
            "iscrowd": rng.choice((0, 0, 1)),
        }
        for number in range(rng.randrange(1, 5))
    ]
    categories = [{"id": 3, "name": "ant"}, {"id": 1, "name": "bee"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def _truth(text: bytes) -> Truth:
    """What the text says.

    Raises:
      Refuse: nothing that could be read without guessing.
    """
    try:
        tree = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise Refuse from None
    lists = [tree.get(key) if isinstance(tree, dict) else None for key in _KEYS]
    if not all(isinstance(entries, list) for entries in lists):
        raise Refuse
    images, annotations, categories = ([_object(entry) for entry in entries] for entries in lists)
    names = {_id(category["id"]): _class(category["name"]) for category in categories}
    if not names or len(names) < len(categories) or len(set(names.values())) < len(names):
        raise Refuse
    position, sizes, truth = {}, [], Truth([], [])
    for image in images:
        name = _text(image["file_name"])
        real = next((SIZES[n] for n in SIZES if n == os.path.normpath(name)), None)
        if real is None or name.startswith("/") or ".." in name.split("/"):
            raise Refuse
        told = [_side(image.get(key)) for key in ("height", "width")]
        size = tuple(told) if 0 not in told else real  # filled in together
        if size != real:
            truth.of_another_size += (len(sizes),)
        if (id := _id(image["id"])) in position:
            raise Refuse
        position[id] = len(sizes)
        sizes.append(size)
        truth.images.append(name)
        truth.boxes.append([])
    if not sizes:
        raise Refuse  # a split of no images
    for annotation in annotations:
        id, category = _id(annotation["image_id"]), annotation["category_id"]
        if not isinstance(category, str):
            _id(category)
        if id not in position or not isinstance(annotation["bbox"], list):
            raise Refuse
        x, y, width, height = _four(annotation["bbox"])
        crowd, area = annotation.get("iscrowd"), annotation.get("area")
        if not (crowd is None or (isinstance(crowd, (int, float)) and crowd in (0, 1))):
            raise Refuse
        if area is not None and not (0 <= number(area) <= 2**62):
            raise Refuse
        index = position[id]
        corners = box(x, y, width, height, sizes[index])
        if corners is None or category not in names:
            truth.left_out += 1
            continue
        area = width * height if area is None else area
        truth.boxes[index].append((corners, names[category], bool(crowd), float(area)))
    return truth


_KEYS = ("images", "annotations", "categories")


class _Entry(dict):
    """An object of which nothing that is needed may be missing."""

    def __missing__(self, key):
        raise Refuse


def _once(pairs: list) -> dict:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError
    return dict(pairs)


def _object(entry: Any) -> _Entry:
    if not isinstance(entry, dict):
        raise Refuse
    return _Entry(entry)


def _id(value: Any) -> int:
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise Refuse
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise Refuse
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in value):
        raise Refuse
    return value


def _class(value: Any) -> str:
    return str(value) if type(value) is int else _text(value)


def _side(value: Any) -> int:
    """A height or width; 0 where it has to be read from the image."""
    if value is None:
        return 0
    found = number(value)
    if not math.isfinite(found) or found != int(found) or not 0 <= found < 2**31:
        raise Refuse
    return int(found)


def _four(values: list) -> list[float]:
    if len(values) != 4:
        raise Refuse
    return [number(value) for value in values]
