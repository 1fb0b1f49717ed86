"""TFDS sets prepared as ArrayRecord, found and read without TensorFlow."""

import dataclasses
import shlex
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from google.protobuf.message import DecodeError
from tensorflow_datasets.core import constants
from tensorflow_datasets.core.utils.version import list_all_versions

from inputs.examples import Example
from inputs.images import DataError, EncodedImage


@dataclasses.dataclass(frozen=True, eq=False)
class Records:
    """Serialized examples of one split, parsed when read; their images stay encoded.

    TFDS would decode with OpenCV or Pillow, as it finds them, and leaves CMYK and gray files as
    they are. Our own decoder gives the set's channels, always alike.
    """

    name: str
    records: Sequence[bytes]
    features: Any  # a FeaturesDict with an image; TFDS's own types say too little

    def __len__(self) -> int:
        return len(self.records)

    def name_of(self, index: int) -> str:
        return f"{self.name} example {index}"

    def __getitem__(self, index: int) -> dict[str, Any]:
        name = self.name_of(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"{name}: the split has {len(self)} examples.")
        try:
            record = self.records[index]
            if not record:  # what array_record returns from a shard that was cut short
                raise ValueError("no record in the file")
            return self.features.deserialize_example_np(
                record, decoders={"image": tfds.decode.SkipDecoding()}
            )
        # array_record reports a damaged chunk as RuntimeError or ValueError.
        except (DecodeError, RuntimeError, ValueError) as error:
            raise DataError(
                f"{name} cannot be read ({error}): prepare the set again, or set on_error to"
                " 'skip'."
            ) from error

    def image(self, encoded: bytes, index: int) -> EncodedImage:
        """The image of example `index`."""
        return EncodedImage(encoded, self.name_of(index), self.features["image"].shape[-1])


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
        image = self.records.image(example["image"], index)
        label = np.int32(example["label"])
        if not 0 <= label < len(self.class_names):
            raise DataError(
                f"{self.records.name_of(index)} has label {label}, which is none of the"
                f" {len(self.class_names)} classes: choose a split that has labels."
            )
        return {"image": image.decode() if self.decode else image, "label": label}


def prepared_source(
    name: str, data_dir: str | None, split: str, *, decode: bool = True
) -> _Prepared:
    """Opens `split` of the image-classification set in `data_dir/name/[config/]version`.

    See `classification_source` of `decode`.

    Raises:
      DataError: It is not there, not in ArrayRecord form, or has no image and label.
    """
    records = open_records(name, data_dir, split, _image_and_label)
    return _Prepared(records, tuple(records.features["label"].names), decode)


def open_records(
    name: str,
    data_dir: str | None,
    split: str,
    choose: Callable[[epath.Path, dict[str, Any]], Any],
) -> Records:
    """Opens `split` of the set in `data_dir/name/[config/]version`.

    Args:
      name: "name", "name/config", "name:version" or "name/config:version".
      data_dir: Where it is; by default TFDS's own folder.
      split: A split or a slice of one.
      choose: `choose(folder, features)` gives the FeaturesDict to read of the features there, or
        raises DataError.

    Raises:
      DataError: It is not there, or not in ArrayRecord form.
    """
    folder = _find_folder(name, data_dir)
    builder: Any = tfds.builder_from_directory(folder)
    info = builder.info
    if tfds.core.FileFormat.ARRAY_RECORD not in info.available_file_formats():
        raise DataError(
            f"{folder} holds {info.file_format.value} files, which cannot be read in any order:"
            " rewrite them as ArrayRecord with"
            f" `python -m inputs.prepare --from_dir={shlex.quote(str(folder))}`."
        )
    features = choose(folder, dict(info.features.items()))
    try:
        records = builder.as_data_source(
            split,
            deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES,
            file_format=tfds.core.FileFormat.ARRAY_RECORD,
        )
        size = len(records)
    except ValueError as error:  # TFDS: an unknown split, a malformed one, or an empty slice
        splits = ", ".join(f"{s} ({info.splits[s].num_examples})" for s in info.splits)
        raise DataError(
            f"{folder} has no split {split!r} ({_first_sentence(error)}): use one of {splits} or a"
            " slice such as train[:1000] or train[80%:]."
        ) from error
    if not size:
        raise DataError(f"split {split!r} of {folder} is empty: choose a slice that is not.")
    missing = [
        file.filename
        for file in info.splits[split].file_instructions
        if not epath.Path(file.filename).exists()
    ]
    if missing:
        raise DataError(
            f"{missing[0]} is missing ({len(missing)} such files): copy or prepare the set again."
        )
    return Records(f"{folder} {split}", records, features)


def _image_and_label(folder: epath.Path, features: dict[str, Any]) -> Any:
    """The two features we read; parsing only them spares decoding whatever else a set has."""
    wanted = {"image": tfds.features.Image, "label": tfds.features.ClassLabel}
    if not all(isinstance(features.get(key), kind) for key, kind in wanted.items()):
        raise DataError(
            f"{folder} is no image-classification set (its features:"
            f" {', '.join(sorted(features))}): use one with an image and a class label."
        )
    check_image_feature(folder, features["image"])
    return tfds.features.FeaturesDict({key: features[key] for key in wanted})


def check_image_feature(folder: epath.Path, feature: Any) -> None:
    """Holds a set's images to what can be read.

    Raises:
      DataError: They are not of uint8, or have another number of channels.
    """
    shape, dtype = feature.shape, np.dtype(feature.np_dtype)
    if dtype != np.uint8 or shape[-1] not in (1, 3, 4):
        raise DataError(
            f"{folder} has {dtype} images of shape {shape}: use a set of uint8 images with 1, 3 or"
            " 4 channels."
        )


def _find_folder(name: str, data_dir: str | None) -> epath.Path:
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


def _version_in(root: epath.Path, version: str) -> epath.Path | None:
    """The folder of `version`, or of the newest, that holds a whole prepared set."""
    folders = [root / str(v) for v in list_all_versions(root) if version in ("", str(v))]
    whole = [
        folder
        for folder in folders
        if (folder / "dataset_info.json").exists() and (folder / "features.json").exists()
    ]
    return whole[-1] if whole else None


def _first_sentence(error: ValueError) -> str:
    return str(error).splitlines()[0].rstrip(".")
