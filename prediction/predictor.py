"""What predicts, whether it is a run's checkpoint or an exported file."""

import abc
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from inputs import pipeline
from inputs.images import read_image
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
        return [self.task.describe(prediction) for prediction in self.each(images) if prediction]

    def each(self, images: Sequence[Image], *, on_error: str = "raise") -> Iterator[dict | None]:
        """Yields `task.predict`'s arrays of each image in turn, as batches are done.

        The next images are read meanwhile.

        Args:
          images: as of `predict`.
          on_error: "raise" DataError at an image that cannot be read, or "skip" it: its prediction
            is None.
        """
        size = self.batch_size(len(images))
        batches = pipeline.eval_batches(
            _Unlabeled(self.task, images),
            self.task.transform(train=False),
            batch_size=size,
            rows=self.rows(size),
            on_error=on_error,
            num_threads=self.task.config.data.num_threads,
        )
        for number, batch in enumerate(batches):
            found = self(batch)
            for row in range(min(size, len(images) - number * size)):
                read = found["mask"][row]
                yield {name: values[row] for name, values in found.items()} if read else None


class _Unlabeled:
    """Images as a source of examples of which nothing else is known."""

    def __init__(self, task: Task, images: Sequence[Image]):
        self._task, self._images = task, images
        self.class_names = task.class_names

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int):
        return self._task.unlabeled(read(self._images[index], self._task), index)


def read(image: Image, task: Task) -> np.ndarray:
    """The pixels of an image as its task takes them, uint8 `[height, width, channels]`.

    Raises:
      DataError: a file that cannot be read.
      ValueError: an array of another shape or dtype.
    """
    channels = task.config.data.channels
    if not isinstance(image, np.ndarray):
        return read_image(str(pathlib.Path(image)), channels)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != channels:
        raise ValueError(
            f"an image must be uint8 [height, width, {channels}], got {image.dtype}"
            f"{list(image.shape)}"
        )
    return image
