"""What predicts, whether it is a run's checkpoint or an exported file."""

import abc
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from inputs import pipeline
from inputs.images import DataError, read_image
from tasks.base import Task

# A file's path, or uint8 `[height, width, channels]`.
Image = str | os.PathLike | np.ndarray


class Predictor(abc.ABC):
    """A trained network with its task: images in, predictions out.

    Attributes:
      task: made of the run's config, without its data.
      class_names: what labels index.
      step: of training, after which the weights are.
      weights: which they are and where from, for the eye.
    """

    def __init__(self, task: Task, step: int, weights: str):
        self.task, self.step, self.weights = task, step, weights
        self.class_names = task.class_names

    @abc.abstractmethod
    def __call__(self, batch: pipeline.Batch) -> dict[str, np.ndarray]:
        """What `task.predict` gives for a batch, and its `mask`, on the host.

        Args:
          batch: what `task.transform(train=False)` and `pipeline.eval_batches` make of images, the
            rows `rows(size)` of it, where `size` is a `batch_size`.

        Returns:
          Arrays `[size, ...]`, of all rows on all processes.
        """

    @abc.abstractmethod
    def batch_size(self, count: int) -> int:
        """The size of the batches in which `count` images are best predicted."""

    def rows(self, batch_size: int) -> slice:
        """The rows of a batch that this process reads."""
        return slice(batch_size)

    def predict(self, images: Sequence[Image]) -> list[dict[str, Any]]:
        """What is found in each image, in JSON's types; see `describe` of the task.

        Args:
          images: files, or uint8 `[height, width, channels]`.

        Raises:
          DataError: there are none, or one cannot be read.
        """
        found = []
        for prediction in self.each(images):
            if isinstance(prediction, DataError):
                raise prediction
            found.append(self.task.describe(prediction))
        return found

    def each(self, images: Sequence[Image]) -> Iterator[dict[str, np.ndarray] | DataError]:
        """Yields `task.predict`'s arrays of each image in turn, as batches are done.

        The next images are read meanwhile. Of one that cannot be read it is the error.

        Args:
          images: as of `predict`.

        Raises:
          DataError: there are none.
        """
        size = self.batch_size(len(images))
        batches = pipeline.eval_batches(
            _Unlabeled(self.task, images),
            _with_unread(self.task.transform(train=False)),
            batch_size=size,
            rows=self.rows(size),
            num_threads=self.task.config.data.num_threads or 16,  # 0 is for images in memory
        )
        for number, batch in enumerate(batches):
            batch["mask"] &= ~batch.pop("unread")
            found = self(batch)
            for row, image in enumerate(images[number * size : (number + 1) * size]):
                if found["mask"][row]:
                    yield {name: values[row] for name, values in found.items()}
                else:
                    yield self._error(image)

    def _error(self, image: Image) -> DataError:
        """Why an image was not read, perhaps by another process, which cannot tell it."""
        try:
            read(image, self.task)
        except DataError as error:
            return error
        return DataError(f"{image} could not be read")


class _Unlabeled:
    """Images as a source of examples of which nothing else is known."""

    def __init__(self, task: Task, images: Sequence[Image]):
        self._task, self._images = task, images
        self.class_names = task.class_names

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int):
        try:
            image, unread = read(self._images[index], self._task), False
        except DataError:  # a blank takes its place in the batch
            image, unread = np.zeros((1, 1, self._task.config.data.channels), np.uint8), True
        return {**self._task.unlabeled(image, index), "unread": np.bool_(unread)}


def _with_unread(transform):
    def apply(example, rng):
        unread = example.pop("unread")
        return transform(example, rng) | {"unread": unread}

    return apply


def read(image: Image, task: Task) -> np.ndarray:
    """The pixels of an image as its task takes them, a photograph upright.

    Returns:
      uint8 `[height, width, channels]`.

    Raises:
      DataError: a file that cannot be read; the message says no more than why.
      ValueError: an array of another shape or dtype.
    """
    channels = task.config.data.channels
    if not isinstance(image, np.ndarray):
        try:
            return read_image(os.fspath(image), channels, upright=True)
        except DataError as error:
            # After the reason in brackets it advises to leave the file out, as is done.
            reason, found, _ = str(error).rpartition("): ")
            raise DataError(f"{reason})" if found else str(error)) from error
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != channels:
        raise ValueError(
            f"an image must be uint8 [height, width, {channels}], got {image.dtype} "
            f"{list(image.shape)}"
        )
    return image
