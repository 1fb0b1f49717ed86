"""What a prepared TFDS set says of itself, in dataset_info.json and features.json.

TFDS would import the module of any feature that features.json names, and fill in any template of
file names. So both files are read here, by fixed tables; slices of splits are TFDS's again.
"""

import dataclasses
import os
import re
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core.splits import SplitDict

from inputs.reading import (
    METADATA_BYTES,
    DataError,
    integer,
    is_name,
    parse_json,
    read_file,
    shown,
)

_TFDS = "tensorflow_datasets.core.features."
# TFDS's own features, and where features.json has the content of those that are read.
_FEATURES = {
    "features_dict.FeaturesDict": "featuresDict",
    "sequence_feature.Sequence": "sequence",
    "image_feature.Image": "image",
    "class_label_feature.ClassLabel": "classLabel",
    "bounding_boxes.BBoxFeature": "boundingBox",
} | dict.fromkeys(
    (
        "audio_feature.Audio",
        "dataset_feature.Dataset",
        "labeled_image.LabeledImage",
        "scalar.Scalar",
        "tensor_feature.Tensor",
        "text_feature.Text",
        "translation_feature.Translation",
        "translation_feature.TranslationVariableLanguages",
        "video_feature.Video",
    ),
    "",
)
_TEMPLATE = r"(?:[\w.-]|{(?:DATASET|SPLIT|FILEFORMAT|SHARD_INDEX|NUM_SHARDS|SHARD_X_OF_Y)})*"
_MAX_CLASSES = 2**20
_MAX_SHARDS = 2**16
_BROKEN = (AttributeError, KeyError, TypeError, ValueError, RecursionError)


@dataclasses.dataclass(frozen=True)
class Feature:
    """A feature of a set, and what is read of its content.

    Attributes:
      kind: TFDS's name, such as "Image".
      shape: of images; None where they differ.
      dtype: of images.
      num_classes: of labels.
      bbox_format: of boxes.
    """

    kind: str
    shape: tuple[int | None, ...] = ()
    dtype: str = ""
    num_classes: int = 0
    bbox_format: str = "REL_YXYX"  # that of sets from before there were others


def read_features(folder: str) -> dict[str, Feature]:
    """The features of a set, by the names that its records have: "objects/label".

    Raises:
      DataError: features.json is no such file, or has a feature that is none of TFDS's own.
    """
    path = os.path.join(folder, "features.json")
    tree = parse_json(read_file(path, METADATA_BYTES), path)
    try:
        return dict(_flat(tree, "", path))
    except DataError:
        raise
    except _BROKEN as error:
        raise DataError(
            f"{path} describes no features ({_reason(error)}): copy or prepare the set again."
        ) from error


def _flat(entry: dict[str, Any], name: str, path: str) -> Iterator[tuple[str, Feature]]:
    """Features below `entry`, as TFDS writes it since 4.5 ("pythonClassName") and did before."""
    python_name = entry["pythonClassName" if "pythonClassName" in entry else "type"]
    kind = python_name.removeprefix(_TFDS)
    if kind not in _FEATURES or kind == python_name:
        raise DataError(
            f"{path} has the feature {shown(python_name)}, which is none of TFDS's own: no code"
            " that a data set names is run."
        )
    content = entry.get("content", entry.get(_FEATURES[kind], {}))
    if isinstance(content, str):
        content = parse_json(content.encode(), path)
    kind = kind.rpartition(".")[2]
    if kind == "FeaturesDict":
        of_old = isinstance(entry.get("content"), dict)
        for key, feature in (content if of_old else content["features"]).items():
            yield from _flat(feature, f"{name}/{key}" if name else key, path)
    elif kind == "Sequence":
        yield from _flat(content["feature"], name, path)
    elif kind == "Image":
        shape = content["shape"]
        sizes = shape["dimensions"] if isinstance(shape, dict) else shape
        sizes = [-1 if size is None else integer(size) for size in sizes]
        shape = tuple(None if size == -1 else size for size in sizes)
        yield name, Feature(kind, shape=shape, dtype=str(content["dtype"]))
    elif kind == "ClassLabel":
        number = content.get("numClasses", content.get("num_classes", 0))
        yield name, Feature(kind, num_classes=integer(number))
    elif kind == "BBoxFeature":
        yield name, Feature(kind, bbox_format=str(content.get("bboxFormat", "REL_YXYX")))
    else:
        yield name, Feature(kind)


def read_class_names(folder: str, name: str, feature: Feature) -> tuple[str, ...]:
    """The names of a label's classes, their numbers where the set has no names.

    Args:
      folder: of the set.
      name: of the feature in its records.
      feature: see `read_features`.

    Raises:
      DataError: the names are not as many as the classes, or not all different.
    """
    path = os.path.join(folder, f"{name.replace('/', '-')}.labels.txt")
    count = feature.num_classes
    if not 0 < count <= _MAX_CLASSES:
        raise DataError(
            f"{folder} has {count} classes, expected 1 to {_MAX_CLASSES}: prepare the set again."
        )
    if not os.path.exists(path):
        return tuple(map(str, range(count)))
    lines = read_file(path, METADATA_BYTES).decode("utf-8", "surrogateescape").split("\n")
    names = tuple(line.strip() for line in lines if line.strip())
    if len(names) != count or len(set(names)) < count or not all(map(is_name, names)):
        raise DataError(
            f"{path} holds {len(names)} names, expected {count} different ones that can be"
            " printed, one on a line: copy or prepare the set again."
        )
    return names


@dataclasses.dataclass(frozen=True)
class Info:
    """What is read of dataset_info.json.

    Attributes:
      folder: of the set.
      content: the whole.
      formats: of the set's files, such as "array_record".
      shard_lengths: examples in each file, by split.
      templates: of the files' names, by split; empty for TFDS's own.
    """

    folder: str
    content: dict[str, Any]
    formats: tuple[str, ...]
    shard_lengths: dict[str, list[int]]
    templates: dict[str, str]

    def splits(self, file_format: str, folder: str | None = None) -> SplitDict:
        """The splits in files of a format, in the set's folder or another."""
        return SplitDict(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=lengths,
                num_bytes=0,
                filename_template=tfds.core.ShardedFileTemplate(
                    data_dir=epath.Path(folder or self.folder),
                    template=self.templates[split],
                    dataset_name=self.content["name"],
                    split=split,
                    filetype_suffix=file_format,
                ),
            )
            for split, lengths in self.shard_lengths.items()
        )


def read_info(folder: str) -> Info:
    """Reads dataset_info.json.

    Raises:
      DataError: it is no such file, or has names from which no names of files can be made.
    """
    path = os.path.join(folder, "dataset_info.json")
    content = parse_json(read_file(path, METADATA_BYTES), path)
    try:
        formats = (
            content.get("fileFormat", "tfrecord"),
            *content.get("alternativeFileFormats", ()),
        )
        splits = {split["name"]: split for split in content.get("splits", ())}
        lengths = {
            name: [integer(length) for length in split.get("shardLengths", ())]
            for name, split in splits.items()
        }
        templates = {name: split.get("filepathTemplate", "") for name, split in splits.items()}
        config = content.get("configName") or content["name"]
        for name in (content["name"], config, content["version"], *formats, *splits):
            # They become parts of paths.
            if not is_name(name) or "/" in name or name in (".", ".."):
                raise ValueError(f"the name {shown(name)}")
        for template in templates.values():
            if not re.fullmatch(_TEMPLATE, template, re.ASCII):
                raise ValueError(f"the filepathTemplate {shown(template)}")
        for counts in lengths.values():
            if len(counts) > _MAX_SHARDS or not all(0 <= count < 2**48 for count in counts):
                raise ValueError(f"the shardLengths {shown(counts)}")
        if len(splits) < len(content.get("splits", ())):
            raise ValueError("splits of one name")
        info = Info(folder, content, formats, lengths, templates)
        for file_format in formats:
            for split in info.splits(file_format).values():
                _ = split.filenames  # a template may ask for what there is not
    except _BROKEN as error:
        raise DataError(
            f"{path} describes no data set ({_reason(error)}): copy or prepare the set again."
        ) from error
    return info


def _reason(error: Exception) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)
