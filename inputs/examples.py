"""What a source gives: examples, by index."""

from collections.abc import Mapping
from typing import Any, Protocol, TypedDict

import numpy as np

from inputs.images import EncodedImage


class Example(TypedDict):
    """One example: `image` uint8 `[height, width, channels]`, perhaps encoded, and a `label`."""

    image: np.ndarray | EncodedImage
    label: np.int32


class Source(Protocol):
    """Random access to examples; safe to read from many threads.

    `source[i]` raises DataError, naming the file, for an example that cannot be read; what an
    `EncodedImage` in it holds shows when it is decoded. A source may have `found`, a
    `inputs.found.Found`, which is told at a start.
    """

    @property
    def class_names(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...
