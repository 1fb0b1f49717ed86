"""What others wrote: files, numbers, JSON, names and paths, read with care or refused.

Nothing that is read is trusted, see SECURITY.md. Whatever else is wrong with it, a file is regular
and of a bounded size, a number finite, and a path inside its folder.
"""

import contextlib
import json
import math
import os
import re
import reprlib
import stat
import unicodedata
from collections.abc import Iterator
from typing import Any, BinaryIO, TypeGuard

EXAMPLE_BYTES = 2**28  # of a file of one example: more than the pixels that are decoded
METADATA_BYTES = 2**24  # of a file about one example or one set
ANNOTATION_BYTES = 2**32  # of one json for a whole set: COCO's own has 0.5 GB


class DataError(ValueError):
    """Bad data, not a bug: one sentence that names the thing and says what would be right."""


@contextlib.contextmanager
def open_file(path: str, max_bytes: int | None) -> Iterator[BinaryIO]:
    """Opens a regular file: a pipe would be waited for, a device read without end.

    Raises:
      DataError: it is none, is not there or not readable, or has more than `max_bytes`.
    """
    try:
        file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115, see below
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise DataError(unreadable(path, error)) from error
    with file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path} is a device or a pipe, no file: remove it.")
        if max_bytes is not None and status.st_size > max_bytes:
            raise DataError(
                f"{path} has {status.st_size} bytes, expected at most {max_bytes}: make it smaller"
                " or remove it."
            )
        yield file


def read_file(path: str, max_bytes: int = EXAMPLE_BYTES) -> bytes:
    """Reads a whole file.

    Raises:
      DataError: see `open_file`.
    """
    with open_file(path, max_bytes) as file:
        try:
            return file.read(os.fstat(file.fileno()).st_size)
        except OSError as error:
            raise DataError(unreadable(path, error)) from error


def unreadable(path: str, error: Exception) -> str:
    """The sentence for a file that could not be opened or read."""
    reason = getattr(error, "strerror", None) or error
    return f"{path} cannot be read ({reason}): make it readable or remove it."


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def parse_json(text: bytes, name: str) -> Any:
    """What a JSON file holds.

    Raises:
      DataError: it is none, is nested too deep, or has a key twice in one object.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise ValueError(f"one object has {shown(twice)} twice")
        return found

    try:
        return json.loads(text, object_pairs_hook=once)
    except RecursionError:
        raise DataError(f"{name} is no JSON of ours (it is nested too deep).") from None
    except ValueError as error:
        raise DataError(f"{name} is no JSON ({error}): copy or write it again.") from error


def number(text: str) -> float:
    """A finite number from text.

    Raises:
      ValueError: it is none.
    """
    with contextlib.suppress(ValueError):
        # float() takes digits of all scripts, and 1_000.
        if text.isascii() and "_" not in text and math.isfinite(found := float(text)):
            return found
    raise ValueError(f"{shown(text)} is no finite number")


def integer(value: Any) -> int:
    """An integer of at most 64 bits, which a JSON may have as text.

    Raises:
      ValueError: it is none.
    """
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,18}", value, re.ASCII):
        return int(value)
    if not is_int64(value):
        raise ValueError(f"{shown(value)} is no integer")
    return value


def is_int64(value: Any) -> TypeGuard[int]:
    """Whether a value of a JSON is an integer of at most 64 bits."""
    return type(value) is int and -(2**63) <= value < 2**63


def is_integer(value: Any, least: int, most: int) -> bool:
    """Whether a value of a JSON is an integer between two, also one written as 3.0."""
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and least <= value <= most
        and value == int(value)
    )


def is_name(value: Any) -> TypeGuard[str]:
    """Whether a value is text that can be printed, as the name of a class or file has to be."""
    return (
        isinstance(value, str)
        and bool(value.strip())
        and not any(unicodedata.category(character) in ("Cc", "Cs") for character in value)
    )


def inside(folder: str, name: str, what: str) -> str:
    """The path of `name` in `folder`.

    Raises:
      DataError: `name`, which is called `what`, leads out of the folder.
    """
    if os.path.isabs(name) or ".." in name.split("/") or "\0" in name:
        raise DataError(
            f"{what} is {shown(name)}, which does not lie in {folder}: write a path below it."
        )
    return os.path.join(folder, name)


def shown(value: Any) -> str:
    """A value as a message has it: short, however long or deep it is."""
    return _short.repr(value)


def shortened(text: str) -> str:
    """As much of a text as a list or a picture has room for."""
    return text if len(text) <= 300 else f"{text[:299]}…"


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80
