"""Broken TFDS sets: what they say of themselves, and their records."""

import json
import random
import sys
from pathlib import Path

import numpy as np

from fuzz.cases import READ, SKIPPED, Case, Wrong
from fuzz.damage import damaged, mutated
from inputs.detection_sources import detection_source
from inputs.images import DataError
from inputs.sources import classification_source
from photos import encoded
from toy_tfds import LABELS, feature, record, write_tfds

_IMAGES = [np.full((6, 5, 3), 40 * number, np.uint8) for number in range(6)]
_BOXES = [[(0.0, 0.0, 1.0, 1.0), (0.25, 0.5, 0.75, 1.0)], [(0.1, 0.2, 0.3, 0.4)], []]


def metadata(rng: random.Random, folder: Path) -> Case:
    """A set of classification of which a file about it is broken, or names what it must not."""
    records = [
        record(image=encoded(x, "PNG"), label=i % 3, note=b"") for i, x in enumerate(_IMAGES)
    ]
    path = write_tfds(folder, {"train": [records[:2], records[2:5]], "test": [records[5:]]})
    (folder / "toy" / "evil.labels.txt").write_text("x\ny\nz\n")
    file = path / rng.choice(
        ("dataset_info.json", "features.json", "features.json", "label.labels.txt")
    )
    data = file.read_bytes()
    if file.suffix == ".json" and rng.random() < 0.8:
        text = mutated(rng, json.loads(data))
        for old, new in _HOSTILE:
            if rng.random() < 0.05:
                text = text.replace(old, new)
        data = text.encode()
    else:
        data = damaged(rng, data)
    file.write_bytes(data)

    def read() -> str:
        before = set(sys.modules)
        source = classification_source("toy", str(folder), "train")
        names, lines = source.class_names, []
        if (path / "label.labels.txt").exists():
            lines = (path / "label.labels.txt").read_bytes().decode("utf-8", "surrogateescape")
            lines = [line.strip() for line in lines.split("\n") if line.strip()]
        if len(names) != 3 or list(names) != lines:
            raise Wrong(f"the classes are {names}, the file has {lines}")
        if len(source) != 5:
            raise Wrong(f"{len(source)} examples of 5")
        for index in range(5):
            example = source[index]
            if not (example["image"] == _IMAGES[index]).all() or example["label"] != index % 3:
                raise Wrong(f"example {index} is another")
        if strange := {name for name in set(sys.modules) - before if "." not in name} & _STRANGERS:
            raise Wrong(f"{strange} was imported")
        return READ

    return Case(read, (str(path),))


# Modules that nothing of ours imports.
_STRANGERS = {"antigravity", "this", "turtledemo", "idlelib", "lib2to3"}
_HOSTILE = (
    ("tensorflow_datasets.core.features.text_feature.Text", "antigravity.Text"),
    ("tensorflow_datasets.core.features.image_feature.Image", "idlelib.Image"),
    ("{SHARD_X_OF_Y}", "{SPLIT.__class__}"),
    ("{DATASET}", "../../{DATASET}"),
    ("{DATASET}", "{DATASET:>1000000000}"),
    ('"toy"', '"../toy"'),
    ('"train"', '"../train"'),
    ('"2"', '"-2"'),
    ('"2"', '"3"'),
    ('"3"', '"2"'),
    ('"numClasses": "3"', '"numClasses": "1099511627776"'),
    ('"array_record"', '"tfrecord"'),
    ('"uint8"', '"O"'),
)


def classified(rng: random.Random, folder: Path) -> Case:
    """Records of images and labels, one of them with other values, or a damaged shard."""
    good = [{"image": encoded(x, "PNG"), "label": i % 3} for i, x in enumerate(_IMAGES)]
    bad = rng.randrange(4)
    values = good[bad] | {
        rng.choice(("label", "label", "image")): rng.choice(_values(rng)),
    }
    if rng.random() < 0.2:
        del values[rng.choice(list(values))]
    broken = record(**values)
    if rng.random() < 0.2:
        values, broken = None, damaged(rng, broken)
    records = [broken if i == bad else record(**x) for i, x in enumerate(good)]
    path = write_tfds(folder, {"train": [records[:3], records[3:]]}, note=None)
    shards = rng.random() < 0.3
    if shards:
        file = rng.choice(sorted(path.glob("*array_record*")))
        file.write_bytes(_damaged_shard(rng, file.read_bytes()))

    def read() -> str:
        source = classification_source("toy", str(folder), "train")
        if len(source) != 6 or source.class_names != LABELS:
            raise Wrong(f"{len(source)} examples of {source.class_names}")
        skipped = 0
        for index in range(6):
            try:
                example = source[index]
            except DataError as error:
                if str(path) not in str(error) or not (shards or index == bad):
                    raise Wrong(f"example {index}: {error}") from error
                skipped += 1
                continue
            if index != bad:
                right = (example["image"] == _IMAGES[index]).all() and example["label"] == index % 3
            elif values is None:  # damage may change a label or a pixel: what it says counts
                right = 0 <= example["label"] < 3
            else:
                label = values.get("label")
                label = label[0] if isinstance(label, list) and len(label) == 1 else label
                right = type(label) is int and example["label"] == label
                right = right and isinstance(values.get("image"), bytes)
            if not right or example["label"].dtype != np.int32:
                raise Wrong(f"example {index} is {example['label']!r}, not of {values}")
        return SKIPPED if skipped else READ

    return Case(read, (str(path),))


def _values(rng: random.Random) -> tuple:
    return (
        *(0, 1, 2, 3, -1, 7, 2**31, 2**32 + 1, 2**40, -(2**63), 2**63 - 1, [], [0, 1], [2], 1.0),
        *(0.5, float("nan"), [1.0, 2.0], b"1", b"", [b"1", b"2"], b"\xff\xd8", rng.randbytes(50)),
    )


def _damaged_shard(rng: random.Random, data: bytes) -> bytes:
    """Damage where the file is not padding."""
    if rng.random() < 0.3:
        return damaged(rng, data)
    changed = bytearray(data)
    used = [i for i, byte in enumerate(data) if byte]
    for _ in range(rng.choice((1, 2, 30))):
        changed[rng.choice(used)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def detected(rng: random.Random, folder: Path) -> Case:
    """Records of boxes: of other numbers, counts and kinds than they have to be."""
    bad = rng.randrange(3)
    records, given = [], []
    for number, boxes in enumerate(_BOXES):
        values = {
            "image": encoded(_IMAGES[number], "PNG"),
            "objects/bbox": [value for box in boxes for value in box],
            "objects/label": [i % 3 for i in range(len(boxes))],
            "objects/is_crowd": [i % 2 for i in range(len(boxes))],
        }
        if number == bad:
            _change(rng, values)
        given.append(values)
        records.append(record(**values))
    path = _write_detection(folder, records)

    def read() -> str:
        source = detection_source("toy", str(folder), "train")
        skipped = False
        for index in range(3):
            try:
                example = source[index]
            except DataError as error:
                if index != bad or str(path) not in str(error):
                    raise Wrong(f"example {index}: {error}") from error
                skipped = True
                continue
            want = _boxes_of(given[index])
            found = [
                (*map(float, box), int(label), bool(crowd))
                for box, label, crowd in zip(
                    example["boxes"], example["labels"], example["crowd"], strict=True
                )
            ]
            if want is None or not np.allclose(found, want, rtol=1e-5):
                raise Wrong(f"example {index} has {found}, not {want}")
            skipped = skipped or len(found) < len(given[index]["objects/bbox"]) // 4
        return SKIPPED if skipped else READ

    return Case(read, (str(path),))


def _change(rng: random.Random, values: dict) -> None:
    key = rng.choice(list(values)[1:])
    ways = (
        lambda: values.pop(key),
        lambda: values.update({key: rng.choice(_values(rng))}),
        lambda: values.update({key: values[key] + [rng.choice((0, 1, 5))]}),
        lambda: values.update({key: values[key][1:]}),
        lambda: values.update({"objects/label": [rng.choice((-1, 2, 3, 7, 2**40, -5))] * 2}),
        lambda: values.update(
            {
                "objects/bbox": [
                    rng.choice((0.0, 0.5, 1.0, -3.0, 1e30, float("nan"), float("inf")))
                    for _ in values["objects/bbox"]
                ]
            }
        ),
    )
    rng.choice(ways)()


def _boxes_of(values: dict) -> list[tuple] | None:
    """What a record says, None where it says nothing that can be read."""
    lists = {}
    for key in ("objects/bbox", "objects/label", "objects/is_crowd"):
        value = values.get(key)
        lists[key] = value if isinstance(value, list) else [value]
        kind = float if key == "objects/bbox" else int
        if any(type(x) is not kind for x in lists[key]):
            return None
    numbers, labels, crowds = lists.values()
    if len(numbers) != 4 * len(labels) or len(labels) != len(crowds) or not {*crowds} <= {0, 1}:
        return None
    found = []
    for index, label in enumerate(labels):
        if not -1 <= label < 3:
            return None
        ymin, xmin, ymax, xmax = numbers[4 * index : 4 * index + 4]
        ends = [ymin * 6, xmin * 5, ymax * 6, xmax * 5]
        if label < 0 or not all(abs(x) < 2**31 for x in ends) or ymax <= ymin or xmax <= xmin:
            continue
        cut = [min(max(x, 0), limit) for x, limit in zip(ends, (6, 5, 6, 5), strict=True)]
        if cut[0] < cut[2] and cut[1] < cut[3]:
            found.append((*cut, label, bool(crowds[index])))
    return found


def _write_detection(folder: Path, records: list[bytes]) -> Path:
    objects = {
        "bbox": feature("BBoxFeature", "bounding_boxes", boundingBox={}),
        "label": feature("ClassLabel", "class_label_feature", classLabel={"numClasses": "3"}),
        "is_crowd": feature("Tensor", "tensor_feature", tensor={"shape": {}, "dtype": "bool"}),
    }
    content = feature("FeaturesDict", "features_dict", featuresDict={"features": objects})
    sequence = feature(
        "Sequence", "sequence_feature", sequence={"feature": content, "length": "-1"}
    )
    return write_tfds(folder, {"train": [records]}, label=None, note=None, objects=sequence)
