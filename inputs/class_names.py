"""The names of classes as users write them: a tuple, a text, or a file of one name a line."""

import os
from typing import Any

from inputs.files import read_lines
from inputs.reading import DataError, is_name, shown

_QUOTES = " \t\"'"  # which a shell may leave around a text, or its names


def parse_class_names(found: Any, data_dir: str | None) -> tuple[str, ...] | None:
    """What `config.data.class_names` says.

    Args:
      found: names; "sky,building"; or a file of one name a line, as "@classes.txt" or, if it is
        there, without the @; None for what the data says.
      data_dir: where a file may be, too.

    Raises:
      DataError: it is none of these, or a name is there twice.
    """
    if found is None:
        return None
    if isinstance(found, (tuple, list)) and len(found) == 1:
        (found,) = found  # so a text of the command line comes
    if isinstance(found, str):
        path = _file(found.strip(_QUOTES), data_dir)
        if path is not None:
            names = read_lines(path, "the names of the classes")
        else:
            names = [name.strip(_QUOTES) for name in found.split(",")]
            names = names[:-1] if len(names) > 1 and not names[-1] else names
    elif isinstance(found, (tuple, list)):
        names = [str(name) if isinstance(name, int) else name for name in found]
    else:
        names = [str(found)] if isinstance(found, int) else [found]
    if not all(map(is_name, names)) or len(set(names)) < len(names):
        raise DataError(
            f"config.data.class_names is {shown(found)}, read as {shown(names)}: expected different"
            " names, as sky,building or @classes.txt."
        )
    return tuple(names)


def _file(text: str, data_dir: str | None) -> str | None:
    """The path of a file of names; None of a text that is none."""
    name = os.path.expanduser(text.removeprefix("@"))
    for path in (name, os.path.join(os.path.expanduser(data_dir or "."), name)):
        if os.path.isfile(path):
            return path
    return name if text.startswith("@") or "/" in text or text.endswith(".txt") else None
