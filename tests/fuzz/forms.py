"""All forms of input, and how many broken ones of each `make fuzz` makes."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from random import Random

from fuzz import coco, lists, pictures, places, runs, tfds, voc, yolo
from fuzz.cases import Case

FORMS: dict[str, tuple[Callable[[Random, Path], Case], int]] = {
    "image": (pictures.image, 500),
    "mask": (pictures.mask, 300),
    "voc xml": (voc.voc, 400),
    "coco json": (coco.coco, 500),
    "yolo labels": (yolo.labels, 400),
    "yolo yaml": (yolo.description, 250),
    "mask list": (lists.names, 250),
    "voc list": (lists.voc_list, 150),
    "split": (lists.slices, 400),
    "tfds metadata": (tfds.metadata, 400),
    "tfds label": (tfds.classified, 200),
    "tfds boxes": (tfds.detected, 200),
    "no file": (places.place, 100),
    "config.json": (runs.config, 150),
    "metrics.jsonl": (runs.metrics, 200),
    "checkpoint": (runs.checkpoint, 150),
}
if importlib.util.find_spec("weights"):
    from fuzz import arrays

    FORMS["weights"] = (arrays.file, 200)


def make(form: str, number: int, folder: Path) -> Case:
    """Writes the broken input of a number: the same each time."""
    return FORMS[form][0](Random(f"{form}/{number}"), folder)
