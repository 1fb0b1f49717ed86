"""TFDS sets prepared as ArrayRecord, found and read without TensorFlow."""

import contextlib
import dataclasses
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordReader
from etils import epath
from google.protobuf.message import DecodeError
from tensorflow_datasets.core import constants
from tensorflow_datasets.core.utils.version import list_all_versions
from tensorflow_datasets.proto import tf_example_pb2

from inputs.examples import Example
from inputs.images import EncodedImage
from inputs.prepared_info import Feature, read_class_names, read_features, read_info
from inputs.reading import DataError, open_file, shown
from inputs.splits import listed

_protos: Any = tf_example_pb2  # made at import, which no type checker sees
_FORMAT = "array_record"
# How a record holds what is read: as one value or as a list, of which kind.
_FORMS = {
    "image": ("one", "bytes_list"),
    "image/id": ("one", "int64_list"),
    "label": ("one", "int64_list"),
    "objects/area": ("list", "int64_list", "float_list"),
    "objects/bbox": ("list", "float_list"),
    "objects/is_crowd": ("list", "int64_list"),
    "objects/is_difficult": ("list", "int64_list"),
    "objects/label": ("list", "int64_list"),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Records:
    """Serialized examples of one split, parsed when read; their images stay encoded.

    Attributes:
      folder: of the set.
      split: its name, or a slice of it.
      records: each an Example of TensorFlow.
      features: those that are read, by their names in the records.
    """

    folder: str
    split: str
    records: Sequence[bytes]
    features: Mapping[str, Feature]

    def __len__(self) -> int:
        return len(self.records)

    @property
    def name(self) -> str:
        return f"{self.folder} {self.split}"

    def name_of(self, index: int) -> str:
        return f"{self.name} example {index}"

    def __getitem__(self, index: int) -> dict[str, Any]:
        """What `features` names of an example: bytes, an integer, or a list of numbers.

        Raises:
          DataError: It cannot be read, or has something else.
        """
        name = self.name_of(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"{name}: the split has {len(self)} examples.")
        try:
            record = self.records[index]
            if not record:  # what array_record returns from a shard that was cut short
                raise ValueError("no record in the file")
            found = _protos.Example.FromString(record).features.feature
            return {key: _value(found, key) for key in self.features}
        # array_record reports a damaged chunk as RuntimeError or ValueError.
        except (DecodeError, RuntimeError, ValueError) as error:
            raise DataError(f"{name} cannot be read ({error}): prepare the set again.") from error

    def image(self, encoded: bytes, index: int) -> EncodedImage:
        """The image of example `index`."""
        channels = self.features["image"].shape[-1]
        assert channels is not None  # see check_image_feature
        return EncodedImage(encoded, self.name_of(index), channels)


def _value(found: Mapping[str, Any], key: str) -> Any:
    """One feature of a record, held to its form."""
    count, *kinds = _FORMS[key]
    if key not in found:
        raise ValueError(f"it has no {key}")
    kind = found[key].WhichOneof("kind")
    values = list(getattr(found[key], kind).value) if kind else []
    if kind not in kinds and not (count == "list" and not values):  # an empty list has any kind
        raise ValueError(f"its {key} is a {kind}, expected {' or '.join(kinds)}")
    if count == "list":
        return values
    if len(values) != 1:
        raise ValueError(f"its {key} has {len(values)} values, expected one")
    return values[0]


@dataclasses.dataclass(frozen=True, eq=False)
class _Prepared:
    """Images and labels of one split."""

    records: Records
    class_names: tuple[str, ...]
    decode: bool

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Example:
        example = self.records[index]
        label = example["label"]
        if not 0 <= label < len(self.class_names):
            raise DataError(
                f"{self.records.name_of(index)} has label {label}, which is none of the"
                f" {len(self.class_names)} classes: choose a split that has labels."
            )
        image = self.records.image(example["image"], index)
        return {"image": image.decode() if self.decode else image, "label": np.int32(label)}


def prepared_source(
    name: str, data_dir: str | None, split: str, *, decode: bool = True
) -> _Prepared:
    """Opens `split` of the image-classification set in `data_dir/name/[config/]version`.

    See `classification_source` of `decode`.

    Raises:
      DataError: It is not there, not in ArrayRecord form, or has no image and label.
    """
    records = open_records(name, data_dir, split, _image_and_label)
    names = read_class_names(records.folder, "label", records.features["label"])
    return _Prepared(records, names, decode)


def open_records(
    name: str,
    data_dir: str | None,
    split: str,
    choose: Callable[[str, dict[str, Feature]], Sequence[str]],
) -> Records:
    """Opens `split` of the set in `data_dir/name/[config/]version`.

    Args:
      name: "name", "name/config", "name:version" or "name/config:version".
      data_dir: Where it is; by default TFDS's own folder.
      split: A split or a slice of one.
      choose: `choose(folder, features)` gives the names of those to read of the features there, or
        raises DataError.

    Raises:
      DataError: It is not there, or not in ArrayRecord form, or a file is damaged or missing.
    """
    folder = _find_folder(name, data_dir)
    info = read_info(folder)
    if _FORMAT not in info.formats:
        raise DataError(
            f"{folder} holds {info.formats[0]} files, which cannot be read in any order:"
            " rewrite them as ArrayRecord with"
            f" `python -m inputs.prepare --from_dir={shlex.quote(folder)}`."
        )
    features = read_features(folder)
    chosen = {key: features[key] for key in choose(folder, features)}
    splits = info.splits(_FORMAT)
    try:
        files: Any = splits[split].file_instructions
    # TFDS: an unknown split, a malformed one, or a slice that is empty or of too many digits.
    except (ValueError, KeyError, OverflowError) as error:
        there = ", ".join(f"{s} ({splits[s].num_examples})" for s in splits) or "none"
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataError(
            f"{folder} has no split {shown(split)} ({reason}): use one of {there} or a"
            " slice such as train[:1000] or train[80%:]."
        ) from error
    if not files:
        raise DataError(f"split {split!r} of {folder} is empty: choose a slice that is not.")
    missing = [file.filename for file in files if not os.path.exists(file.filename)]
    if missing:
        raise DataError(
            f"{missing[0]} is missing ({len(missing)} such files): copy or prepare the set again."
        )
    for file in files:
        _check_shard(file.filename, file.examples_in_shard)
    for shards in splits.values():  # TFDS passes over those without examples
        for path, examples in zip(shards.filepaths, shards.shard_lengths, strict=True):
            if not examples and path.exists():
                _check_shard(str(path), 0)
    records: Any = ArrayRecordDataSource(files)
    return Records(folder, split, records, chosen)


def _check_shard(path: str, examples: int) -> None:
    """Holds a file to being one, and to having as many examples as are read of it.

    One that was cut short or is damaged has none: its examples are named, or skipped, when read.
    """
    with open_file(path, None):
        pass
    found = 0
    with contextlib.suppress(RuntimeError, ValueError):
        reader = ArrayRecordReader(path)
        found = reader.num_records()
        reader.close()
    if found not in (0, examples):
        raise DataError(
            f"{path} has {found} examples, where dataset_info.json says {examples}: copy or"
            " prepare the set again."
        )


def _image_and_label(folder: str, features: dict[str, Feature]) -> Sequence[str]:
    wanted = {"image": "Image", "label": "ClassLabel"}
    if any(key not in features or features[key].kind != kind for key, kind in wanted.items()):
        raise DataError(
            f"{folder} is no image-classification set (its features:"
            f" {listed(sorted(features))}): use one with an image and a class label."
        )
    check_image_feature(folder, features["image"])
    return list(wanted)


def check_image_feature(folder: str, feature: Feature) -> None:
    """Holds a set's images to what can be read.

    Raises:
      DataError: They are not of uint8, or have another number of channels.
    """
    if feature.dtype != "uint8" or feature.shape[-1:] not in ((1,), (3,), (4,)):
        raise DataError(
            f"{folder} has {feature.dtype[:20]} images of shape {shown(feature.shape)}: use a set"
            " of uint8 images with 1, 3 or 4 channels."
        )


def _find_folder(name: str, data_dir: str | None) -> str:
    """The folder of "name", "name/config", "name:version" or "name/config:version"."""
    data_dir = data_dir or constants.DATA_DIR
    path, _, version = name.partition(":")
    root = epath.Path(data_dir).expanduser() / path
    if folder := _version_in(root, version):
        return folder
    configs = sorted(p.name for p in root.iterdir()) if root.is_dir() else []
    found = {c: folder for c in configs if (folder := _version_in(root / c, version))}
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        raise DataError(
            f"{root} holds several configs: name one of {', '.join(f'{path}/{c}' for c in found)}."
        )
    raise DataError(
        f"{name} is not in {data_dir}: prepare it with"
        f" `python -m inputs.prepare --name={shlex.quote(name)} --data_dir={shlex.quote(data_dir)}`"
        ", or set config.data.dir to the folder that holds it."
    )


def _version_in(root: epath.Path, version: str) -> str | None:
    """The folder of `version`, or of the newest, that holds a whole prepared set."""
    folders = [root / str(v) for v in list_all_versions(root) if version in ("", str(v))]
    whole = [
        folder
        for folder in folders
        if (folder / "dataset_info.json").exists() and (folder / "features.json").exists()
    ]
    return str(whole[-1]) if whole else None
