"""Something that is no file, or has no end, in the place of a file that is read."""

import json
import os
import random
from pathlib import Path

import grain  # noqa: F401, which takes seconds, that are not the reader's
import numpy as np

from fuzz.cases import READ, SKIPPED, Case, Wrong
from fuzz.pictures import NAMES
from inputs import prepare
from inputs.detection_sources import detection_source
from inputs.images import DataError
from inputs.segmentation_sources import segmentation_source
from inputs.sources import classification_source
from photos import encoded
from toy_tfds import record, write_tfds


def place(rng: random.Random, folder: Path) -> Case:
    """A pipe, a device, a folder, a dangling or looping link, a file of a terabyte, no rights."""
    write, open_source = rng.choice(_SETS)
    write(folder)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    path = rng.choice(files)
    path.unlink()
    rng.choice(_STRANGE)(path)

    def read() -> str:
        source = open_source(str(folder))
        skipped = False
        for index in range(len(source)):
            try:
                source[index]
            except DataError as error:
                if str(folder) not in str(error):
                    raise Wrong(f"the file is not named: {error}") from error
                skipped = True
        if not skipped and path.name not in _NOT_NEEDED:
            raise Wrong(f"{path.name} is not missed")
        return SKIPPED if skipped else READ

    return Case(read, (str(folder),))


def _endless(path: Path):
    path.touch()
    os.truncate(path, 2**40)


_STRANGE = (
    os.mkfifo,
    lambda path: path.symlink_to("/dev/zero"),
    lambda path: path.symlink_to("/dev/stdin"),
    lambda path: path.symlink_to("/proc/self/mem"),
    lambda path: path.symlink_to("nowhere"),
    lambda path: path.symlink_to(path),
    lambda path: path.mkdir(),
    _endless,
)
# Without them the classes have numbers for names.
_NOT_NEEDED = ("label.labels.txt",)


def _image(path: Path, value: int = 0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(np.full((6, 5, 3), value, np.uint8), "PNG"))


def _folders(folder: Path):
    for name in "abc":
        _image(folder / "train" / name / "1.png")


def _masks(folder: Path):
    for name in ("1", "2"):
        _image(folder / "images" / f"{name}.png")
        (folder / "masks").mkdir(exist_ok=True)
        mask = encoded(np.eye(6, 5, dtype=np.uint8), "PNG")
        (folder / "masks" / f"{name}.png").write_bytes(mask)
    (folder / "train.txt").write_text("1\n2\n")


def _coco(folder: Path):
    _image(folder / "images" / "1.png")
    box = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 3, 3]}
    tree = {
        "images": [{"id": 1, "file_name": "1.png"}],
        "annotations": [box],
        "categories": [{"id": 1, "name": "a"}],
    }
    (folder / "annotations").mkdir()
    (folder / "annotations" / "instances_train.json").write_text(json.dumps(tree))


def _voc(folder: Path):
    _image(folder / "JPEGImages" / "1.png")
    box = "<bndbox><xmin>0</xmin><ymin>0</ymin><xmax>3</xmax><ymax>3</ymax></bndbox>"
    text = f"<annotation><object><name>a</name>{box}</object></annotation>"
    for name in ("Annotations/1.xml", "ImageSets/Main/train.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text if name.endswith("xml") else "1\n")


def _records() -> list[bytes]:
    image = encoded(np.zeros((6, 5, 3), np.uint8), "PNG")
    return [record(image=image, label=label) for label in range(3)]


def _tfds(folder: Path, file_format: str = "array_record"):
    write_tfds(folder, {"train": [_records()]}, file_format=file_format, note=None)


def _rewritten(folder: str):
    """A set that is rewritten from TFRecord, and then read."""
    prepare.rewrite(os.path.join(folder, "toy", "1.0.0"))
    return classification_source("toy", folder, "train")


_SETS = (
    (_folders, lambda folder: classification_source("image_folder", folder, "train")),
    (_masks, lambda f: segmentation_source("mask_folder", f, "train", class_names=NAMES)),
    (_coco, lambda folder: detection_source("coco_json", folder, "train")),
    (_voc, lambda folder: detection_source("voc_xml", folder, "train")),
    (_tfds, lambda folder: classification_source("toy", folder, "train")),
    (lambda folder: _tfds(folder, "tfrecord"), _rewritten),
)
