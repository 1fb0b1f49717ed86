"""Files of named arrays, `.safetensors` and `.npz`, whose arrays are read one by one.

They are not trusted: nothing of them is executed, and each array tells its shape before it is read.
"""

import contextlib
import functools
import pathlib
import zipfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import safetensors
from safetensors.numpy import save_file

from inputs.images import DataError

SUFFIXES = (".safetensors", ".npz")
PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".tar")  # what PyTorch's own are called


class Stored(NamedTuple):
    """An array in a file: its shape, and what reads it."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


@contextlib.contextmanager
def opened(path: str | pathlib.Path) -> Iterator[dict[str, Stored]]:
    """The arrays of a file by their names, to be read while it is open.

    Raises:
      DataError: it is not there, of another form, or damaged; also where only `read` finds that.
    """
    path = pathlib.Path(path).expanduser()
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path} does not end in {' or '.join(SUFFIXES)}")
    if not path.is_file():
        raise DataError(f"{path} is not there")
    with contextlib.ExitStack() as stack:
        with _named(path):
            arrays = (_npz if path.suffix == ".npz" else _safetensors)(path, stack)
        yield {name: Stored(shape, _guarded(path, read)) for name, (shape, read) in arrays.items()}


def _safetensors(path, stack):
    file = stack.enter_context(safetensors.safe_open(path, framework="np"))
    return {
        name: (tuple(file.get_slice(name).get_shape()), functools.partial(file.get_tensor, name))
        for name in file.keys()  # noqa: SIM118, it is no dict
    }


def _npz(path, stack):
    file = stack.enter_context(zipfile.ZipFile(path))

    def shape(member):
        with file.open(member) as stream:
            if np.lib.format.read_magic(stream) == (1, 0):
                return np.lib.format.read_array_header_1_0(stream)[0]
            return np.lib.format.read_array_header_2_0(stream)[0]

    def read(member):
        with file.open(member) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)

    return {
        member.removesuffix(".npy"): (shape(member), functools.partial(read, member))
        for member in file.namelist()
    }


def _guarded(path, read):
    def guarded():
        with _named(path):
            return read()

    return guarded


@contextlib.contextmanager
def _named(path):
    """What a parser raises of a damaged file is many things; the file's name is in none of them."""
    try:
        yield
    except Exception as error:
        form = path.suffix.removeprefix(".")
        raise DataError(f"{path} is damaged, or no {form} file ({error})") from error


def save(path: str | pathlib.Path, arrays: dict[str, np.ndarray]):
    """Writes a file that `opened` reads, whole or not at all.

    Raises:
      DataError: its name ends in none of `SUFFIXES`, or its form cannot hold such an array.
    """
    path = pathlib.Path(path)
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path} does not end in {' or '.join(SUFFIXES)}")
    draft = path.with_name(f"{path.stem}.draft{path.suffix}")
    try:
        if path.suffix == ".npz":
            np.savez(draft, allow_pickle=False, **arrays)  # type: ignore[arg-type]
        else:
            save_file(arrays, draft)
        draft.replace(path)
    except (safetensors.SafetensorError, TypeError, ValueError) as error:
        raise DataError(f"{path} cannot be written ({error})") from error
    finally:
        draft.unlink(missing_ok=True)
