"""Boxes in YOLO's form: a text file beside each image, and the names of the classes.

The forms that tools write: Ultralytics' (`images/train/*`, `labels/train/*.txt`, a `data.yaml`),
Roboflow's (`train/images/*`, `train/labels/*.txt`), Darknet's and CVAT's (lists `train.txt` of
images, labels beside them), and Label Studio's or labelImg's (`images/*`, `labels/*.txt`,
`classes.txt`, no splits).
"""

import hashlib
import os
from typing import Any

import yaml

from inputs.files import IMAGE_SUFFIXES, check_files, read_lines
from inputs.reading import (
    METADATA_BYTES,
    DataError,
    inside,
    is_integer,
    is_name,
    number,
    read_file,
    shown,
)
from inputs.splits import listed

ALL = "all"  # the split of a folder that has none
_SAME = ("val", "valid", "validation")
_LISTS_OF_NAMES = ("classes.txt", "labels/classes.txt", "obj.names", "classes.names")
_YAML_BYTES = 2**18
# A box may reach a little beyond the image where its numbers were rounded.
_LEAST, _MOST = -0.01, 1.01


def describe(root: str) -> dict[str, Any]:
    """What the yaml in a folder says, all scalars as text; nothing where there is none.

    Raises:
      DataError: it is broken, or there are several.
    """
    files = sorted(os.listdir(root)) if os.path.isdir(root) else []
    files = [file for file in files if file.endswith((".yaml", ".yml")) and file[0] != "."]
    if len(files) > 1:
        files = [file for file in files if file in ("data.yaml", "data.yml")] or files
    if not files:
        return {}
    if len(files) > 1:
        raise DataError(f"{root} has {listed(files)}: call the one that describes it data.yaml.")
    path = os.path.join(root, files[0])
    try:
        found = yaml.load(read_file(path, _YAML_BYTES), _Loader)
    except RecursionError:
        raise DataError(f"{path} is nested too deep.") from None
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        reason = " ".join(str(error).split())
        raise DataError(f"{path} is no YAML ({reason[:300]}): copy or write it again.") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} is {shown(found)}, expected train, val and names.")
    return found


class _Loader(yaml.BaseLoader):
    """Makes text, lists and dicts, and nothing else; a key may be there once."""

    def construct_mapping(self, node, deep=False):
        found = super().construct_mapping(node, deep)
        if len(found) < len(node.value):
            raise yaml.YAMLError("a key is there twice")
        return found


def read_names(root: str, description: dict[str, Any]) -> tuple[str, ...] | None:
    """The classes' names: of the yaml, or of a list beside it; None where there is neither.

    Raises:
      DataError: they are broken.
    """
    found = description.get("names")
    if found is None:
        lists = [os.path.join(root, file) for file in _LISTS_OF_NAMES]
        path = next((path for path in lists if os.path.exists(path)), None)
        if path is None:
            return None
        found, where = read_lines(path), path
    else:
        where = f"names of the yaml in {root}"
    if isinstance(found, dict):
        numbers = [str(i) for i in range(len(found))]
        if set(found) != set(numbers):
            raise DataError(f"{where} have the keys {listed(map(str, found))}, expected 0, 1, ...")
        found = [found[key] for key in numbers]
    if not isinstance(found, list) or not found or not all(map(is_name, found)):
        raise DataError(f"{where} are {shown(found)}, expected a list of names.")
    if len(set(found)) < len(found):
        raise DataError(f"{where} are {listed(found)}: give each class its own name.")
    if description.get("nc", str(len(found))) != str(len(found)):
        raise DataError(f"{where} are {len(found)}, where nc is {shown(description['nc'])}.")
    return tuple(found)


def find_images(root: str, split: str, description: dict[str, Any]) -> list[str]:
    """Paths of a split's images: those of a list in its order, those of folders in a mixed one.

    Raises:
      DataError: there are none; the message says where they were looked for.
    """
    names = [split, *(_SAME if split in _SAME else ())]
    said = next((description[name] for name in names if description.get(name)), None)
    if said is not None:
        places = [_place(root, description, entry) for entry in _entries(said, root, split)]
    else:
        tried = [
            os.path.join(root, *parts)
            for name in names
            for parts in (("images", name), (name, "images"), (f"{name}.txt",))
        ]
        if split == ALL:
            tried = [os.path.join(root, "images"), root]
        places = [place for place in tried if os.path.exists(place)][:1]
        if not places:
            raise DataError(
                f"{root} has no split {split!r}: looked for it in a data.yaml, and for"
                f" {', '.join(tried)} (a folder without splits is the split 'all', as"
                " 'all[:80%]')."
            )
    paths = [path for place in places for path in _images_at(root, place)]
    if not paths:
        raise DataError(
            f"{listed(places)} has no images ({', '.join(IMAGE_SUFFIXES)}) for split {split!r}."
        )
    return paths


def _entries(said: Any, root: str, split: str) -> list[str]:
    entries = said if isinstance(said, list) else [said]
    if not all(map(is_name, entries)):
        raise DataError(f"the yaml in {root} has {split}: {shown(said)}, expected a path.")
    return entries


def _place(root: str, description: dict[str, Any], entry: str) -> str:
    """The folder or list that a yaml names: tools write paths from elsewhere, as ../train/images.

    Raises:
      DataError: it is not below the root.
    """
    if os.path.isabs(entry) and entry.startswith(os.path.join(os.path.abspath(root), "")):
        entry = os.path.relpath(entry, os.path.abspath(root))
    parts = entry.split("/")
    while parts and parts[0] in (".", ".."):
        parts.pop(0)
    entry = "/".join(parts)
    base = description.get("path")
    tried = [entry]
    if is_name(base) and not os.path.isabs(base) and ".." not in base.split("/"):
        tried.insert(0, os.path.join(base, entry))
    tried = [inside(root, path, f"a path of the yaml in {root}") for path in tried]
    for path in tried:
        if os.path.exists(path):
            return path
    raise DataError(f"the yaml in {root} names {entry!r}, and {tried[-1]} is not there.")


def _images_at(root: str, place: str) -> list[str]:
    if not os.path.isdir(place):
        what = f"a line of {place}"
        lines = [line.removeprefix("./") for line in read_lines(place)]
        # CVAT's begin with a folder that it does not write.
        if all(line.startswith("data/") for line in lines) and not os.path.isdir(
            os.path.join(root, "data")
        ):
            lines = [line.removeprefix("data/") for line in lines]
        paths = [inside(root, line, what) for line in lines]
        check_files(paths, f"images of {place}")
        return paths
    found = [
        os.path.join(folder, file)
        for folder, folders, files in os.walk(place)
        for file in files
        if file.lower().endswith(IMAGE_SUFFIXES) and file[0] != "."
    ]

    def mixed(path: str) -> bytes:
        name = os.path.relpath(path, root).encode("utf-8", "surrogateescape")
        return hashlib.blake2b(name).digest()

    return sorted(found, key=mixed)


def label_path(root: str, path: str) -> str:
    """The file of an image's boxes: in `labels` where the image is in `images`, or else beside."""
    parts = os.path.relpath(path, root).split(os.sep)
    for i in reversed(range(len(parts) - 1)):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    return os.path.join(root, os.path.splitext(os.path.join(*parts))[0] + ".txt")


def parse_labels(path: str, num_classes: int) -> list[tuple[int, list[float]]]:
    """The class and box of each line: x, y, width and height as fractions of the image.

    A line is `class x y width height`, where x and y are the box's centre, or a class and a
    polygon's corners, whose bounds are taken.

    Raises:
      ValueError: it is no such file; the message says in which line, `DataError` if it cannot be
        read.
    """
    boxes = []
    text = read_file(path, METADATA_BYTES).decode("utf-8-sig", "replace")
    for position, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            boxes.append(_parse_line(words, num_classes))
        except ValueError as error:
            raise ValueError(f"line {position}: {error}") from error
    return boxes


def _parse_line(words: list[str], num_classes: int) -> tuple[int, list[float]]:
    label, *values = map(number, words)
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise ValueError(
            f"{len(words)} numbers, expected class, x, y, width, height, or class and a polygon"
        )
    if not is_integer(label, 0, num_classes - 1):
        raise ValueError(
            f"class {shown(words[0])}, where there are {num_classes} (0 to {num_classes - 1})"
        )
    beyond = next((value for value in values if not _LEAST <= value <= _MOST), None)
    if beyond is not None:
        raise ValueError(f"{beyond:g} is no fraction of the image, from 0 to 1")
    if len(values) == 4:
        x, y, width, height = values
        return int(label), [x - width / 2, y - height / 2, width, height]
    low, high = (min(values[::2]), min(values[1::2])), (max(values[::2]), max(values[1::2]))
    return int(label), [*low, high[0] - low[0], high[1] - low[1]]
