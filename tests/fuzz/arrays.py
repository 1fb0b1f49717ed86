"""Broken files of weights, `.npz` and `.safetensors`."""

import random
import struct
from pathlib import Path

import numpy as np

from fuzz.cases import READ, Case, Wrong
from fuzz.damage import damaged
from weights.files import opened, save

_ARRAYS = {
    "a/kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "bias": np.full(5, 0.5, np.float16),
    "step": np.int64(7),
}


def file(rng: random.Random, folder: Path) -> Case:
    """A file with damage to its bytes, or to the shapes and kinds that it says its arrays have."""
    path = folder / f"w{rng.choice(('.npz', '.safetensors'))}"
    save(path, {name: np.asarray(array) for name, array in _ARRAYS.items()})
    data = path.read_bytes()
    if rng.random() < 0.3:
        told = rng.choice(
            ((b"(2, 3, 4)", b"(2, 3, 9)"), (b"<f4", b"|O8"), (b"[2,3,4]", b"[2,3,9]"))
        )
        data = data.replace(*told)
    elif path.suffix == ".safetensors" and rng.random() < 0.3:
        data = struct.pack("<Q", rng.choice((0, 2**63, 2**40, 10))) + data[8:]
    else:
        data = damaged(rng, data)
    path.write_bytes(data)

    def read() -> str:
        with opened(path) as found:
            for name, (shape, get) in found.items():
                array = get()
                if array.shape != tuple(shape):
                    raise Wrong(f"{name} is {array.shape}, where it is said to be {shape}")
                if array.dtype == object:
                    raise Wrong(f"{name} holds objects")
                # Its members have check sums; the other form has none.
                same = name in _ARRAYS and np.array_equal(array, _ARRAYS[name])
                if path.suffix == ".npz" and not same:
                    raise Wrong(f"{name} is another array than was written")
        return READ

    return Case(read, (str(path),))
