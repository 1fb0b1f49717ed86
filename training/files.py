"""Files that are whole or not there, and what is told when they cannot be written or read."""

import contextlib
import json
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from etils import epath


class WriteError(OSError):
    """What a run writes cannot be written: the disk is full, or may not be written to."""


@contextlib.contextmanager
def writing(what: object):
    """Within it, a refusal of the system to write is a WriteError that names `what`."""
    try:
        yield
    except WriteError:
        raise
    except (OSError, ValueError) as error:
        if reason := _reason(error):
            raise WriteError(f"{what} cannot be written: {reason}") from error
        raise


def _reason(error: OSError | ValueError) -> str | None:
    """What the system said, None where it said nothing."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    # TensorStore, which writes the arrays of checkpoints, has the system's number in its text.
    number = re.search(r"os_error_code='(\d+)'", str(error))
    return os.strerror(int(number[1])) if number else None


@contextlib.contextmanager
def replacing(path: Any) -> Iterator[Any]:
    """Within it a draft is written, whose path it gives; it then takes the file's place.

    So the file is whole, or what it was, whatever kills this process or writes beside it.

    Raises:
      WriteError: it cannot be written; what was there is still there.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield draft
            draft.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise


def write(path: pathlib.Path | epath.Path, text: str):
    """Writes a text as `replacing` does."""
    with replacing(path) as draft:
        draft.write_text(text)


def is_file(path: pathlib.Path | epath.Path) -> bool:
    """Whether it is a regular file: not a folder, nor a device or pipe, which may never end."""
    # To epath all that is there and no folder is a file.
    return path.is_file() if "://" in str(path) else os.path.isfile(path)


def read_object(path: pathlib.Path | epath.Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
      ValueError: it is none; the message says what it is instead.
      OSError: it cannot be read.
    """
    if path.exists() and not is_file(path):
        raise ValueError("it is not a file")
    try:
        value = json.loads(path.read_text("utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    return value
