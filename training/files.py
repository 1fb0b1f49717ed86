"""Files that are whole or not there."""

import os
import pathlib

from etils import epath


def write(path: pathlib.Path | epath.Path, text: str):
    """Writes a file whole or not at all, whatever kills this process or writes beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
    draft.write_text(text)
    draft.replace(path)
