"""Batches from a source: the position in the data is the step.

Global batch t is elements `[t * batch_size, (t + 1) * batch_size)` of one order: the set, shuffled
anew in every epoch, repeated for ever. Order and augmentation follow from the seed and the position
in it, so a restart seeks to its step, and any number of processes reads the same global batches,
each its own rows. Nothing of an iterator is ever saved.
"""

import atexit
import contextlib
import functools
import math
import weakref
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import grain
import numpy as np

from inputs.bad import Skipped
from inputs.examples import Source
from inputs.images import DataError
from inputs.memory import keep_freed
from inputs.transforms import ExampleTransform

ON_ERROR = ("raise", "skip")


# What the transform makes of an example, stacked: `[rows, ...]` for each key. Besides, `skipped`
# int32 `[rows]` counts unreadable examples (in training those passed over to fill this row), and in
# evaluation `mask` bool `[rows]` is False for padding and for unreadable examples.
Batch = dict[str, np.ndarray]


def train_batches(
    source: Source,
    transform: ExampleTransform,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    rows: slice = slice(None),
    on_error: str = "raise",
    skipped: Skipped | None = None,
    num_threads: int = 16,
    num_workers: int = 0,
) -> Iterator[Batch]:
    """Yields this process's rows of every global batch from `start_step` on, without end.

    Args:
      source: The examples.
      transform: `transform(example, rng) -> arrays`, a dict with the same keys and shapes for every
        example.
      batch_size: Examples in a global batch. A set may be smaller: epochs follow without a gap.
      seed: Fixes the order and the augmentation.
      start_step: The first global batch; reached without reading what lies before it.
      rows: The contiguous part of each global batch that this process holds.
      on_error: "raise" DataError at an unreadable example, or "skip": name it once (in each
        worker) in a warning and read the next good one in its place.
      skipped: What has been named before, and takes what is named now. Default: nothing.
      num_threads: Threads that read and transform examples. 0 does it in the caller's thread,
        which is quickest for small images held in memory.
      num_workers: Processes that share this work, where the interpreter lock holds threads back.
        Needs absl flags parsed, and a picklable source.

    Raises:
      DataError: The set is empty, or (from the iterator) see `on_error`; also if no example at all
        can be read.
    """
    read = _Reader(source, transform, on_error, skipped)
    first, count = _row_range(rows, batch_size)
    start_step = int(start_step)  # a NumPy int32 would overflow in the positions below
    if start_step < 0:
        raise ValueError(f"start_step is {start_step}, expected at least 0")

    order: Any = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat().random_map(read)

    def example_at(index: int) -> dict:
        step, row = divmod(index, count)
        return order[(start_step + step) * batch_size + first + row]

    # Our rows are picked from positions that are already fixed. Taking them any earlier, or by
    # Grain's own strided slices, would change the images with the number of processes.
    steps = len(order) // batch_size - start_step
    mine = grain.MapDataset.range(steps * count).map(example_at)
    examples = mine.to_iter_dataset(_read_options(num_threads // max(1, num_workers), count))
    if num_workers:
        workers = grain.MultiprocessingOptions(num_workers, per_worker_buffer_size=32)
        examples = examples.mp_prefetch(workers, lambda *_: keep_freed())
    # Batched last: threads and workers then share the examples of one batch instead of holding a
    # batch each, and workers do not change which examples a batch has.
    return _until_dropped(examples.batch(count, batch_fn=_stack))


def eval_batches(
    source: Source,
    transform: ExampleTransform,
    *,
    batch_size: int,
    rows: slice = slice(None),
    on_error: str = "raise",
    skipped: Skipped | None = None,
    num_threads: int = 16,
) -> Iterator[Batch]:
    """Yields this process's rows of the whole set, each example once and in order.

    The last global batch is padded with zeros, so every process gets the same number of full
    batches. Under `on_error="skip"` an unreadable example is zeros too, with `skipped` 1. Other
    arguments and errors are those of `train_batches`; a `transform` that is random all the same
    draws the same numbers in every run.
    """
    read = _Reader(source, transform, on_error, skipped)
    first, count = _row_range(rows, batch_size)

    examples: Any = grain.MapDataset.range(len(source)).seed(0).random_map(read)

    @functools.cache
    def blank(skipped: int) -> dict:
        # Only a good example tells the shapes.
        zeros = {key: np.zeros_like(value) for key, value in examples[0].items()}
        return zeros | {"skipped": np.int32(skipped), "mask": False}

    def example_at(index: int) -> dict:
        step, row = divmod(index, count)
        position = step * batch_size + first + row
        if position >= len(source):
            return blank(skipped=0)
        example = examples[position]
        if example["skipped"]:  # the reader put another in its place
            return blank(skipped=1)
        return example | {"mask": True}

    steps = math.ceil(len(source) / batch_size)
    mine = grain.MapDataset.range(steps * count).map(example_at)
    batches = mine.to_iter_dataset(_read_options(num_threads, count)).batch(count, batch_fn=_stack)
    return _until_dropped(batches)


class _Reader:
    """Reads and transforms an example, or in the place of an unreadable one the next good one."""

    def __init__(
        self,
        source: Source,
        transform: ExampleTransform,
        on_error: str,
        skipped: Skipped | None = None,
    ):
        if on_error not in ON_ERROR:
            raise ValueError(f"on_error must be one of {ON_ERROR}, got {on_error!r}")
        if not len(source):
            raise DataError("the data set is empty: choose a split or slice that holds examples.")
        self._source = source
        self._transform = transform
        self._on_error = on_error
        self._skipped = Skipped() if skipped is None else skipped
        self._bad: dict[int, str] = {}

    def __call__(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        size = len(self._source)
        state = rng.bit_generator.state
        for skipped in range(size):
            candidate = (index + skipped) % size
            if candidate in self._bad:
                continue
            try:
                example = self._transform(self._source[candidate], rng)
                return example | {"skipped": np.int32(skipped)}
            except DataError as error:
                message = str(error)
                if self._on_error == "raise":
                    advice = "or go on without it by --config.data.on_error skip."
                    raise DataError(f"{message.removesuffix('.')}, {advice}") from error
                rng.bit_generator.state = state  # whether it was found out in reading or decoding
                self._bad[candidate] = message
                self._skipped.add(message)
        reason = next(iter(self._bad.values()))
        raise DataError(f"none of the {size} examples can be read; the first failure: {reason}")


def _row_range(rows: slice, batch_size: int) -> tuple[int, int]:
    """First row and number of rows of a contiguous, non-empty slice of the global batch."""
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, expected at least 1")
    first, stop, stride = rows.indices(batch_size)
    if stride != 1 or first >= stop:
        raise ValueError(f"rows is {rows}, expected some contiguous rows of {batch_size}")
    return first, stop - first


def _read_options(num_threads: int, count: int) -> grain.ReadOptions:
    # The next two batches are made while the device works on this one. Pending reads are finished
    # at exit, so this also bounds how long an abandoned iterator can hold a process up.
    ahead = 2 * count if num_threads > 0 else 0
    return grain.ReadOptions(min(max(0, num_threads), ahead), prefetch_buffer_size=ahead)


def _stack(examples: Sequence[dict]) -> dict[str, np.ndarray]:
    stacked = {}
    for key in examples[0]:
        values = [example[key] for example in examples]
        shapes = {np.shape(value) for value in values}
        if len(shapes) > 1:
            raise DataError(
                f"{key} has in one batch the shapes {', '.join(map(str, sorted(shapes)))}: choose a"
                " transform that brings all to one size."
            )
        stacked[key] = np.stack(values)
    return stacked


# Grain stops its threads and workers when an iterator is collected. For one that is still held at
# exit that is too late: half of Python is gone by then, and it fails with a noise.
_live: weakref.WeakSet[Generator] = weakref.WeakSet()


@atexit.register
def _close_live() -> None:
    for batches in list(_live):
        with contextlib.suppress(ValueError):  # a daemon thread is inside next()
            batches.close()


def _until_dropped(batches: grain.IterDataset) -> Iterator:
    """Iterates, and stops threads and workers when nobody holds the iterator, or at exit."""

    def iterate() -> Generator:
        iterator = iter(batches)
        try:
            yield from iterator
        finally:
            iterator.close()

    generator = iterate()
    _live.add(generator)
    return generator
