"""Files that a config or a split names: read, or named and counted where they are missing."""

import os
from collections.abc import Sequence

from inputs.bad import NAMED, BadList
from inputs.reading import EXAMPLE_BYTES, DataError, read_file
from inputs.splits import listed

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def read_listed(path: str, advice: str, max_bytes: int = EXAMPLE_BYTES) -> bytes:
    """Reads a file that the config names.

    Raises:
      DataError: see `read_file`; of one that is not there the message says what is there instead,
        and `advice`.
    """
    if not os.path.exists(path):
        folder = os.path.dirname(path)
        there = listed(sorted(os.listdir(folder))) if os.path.isdir(folder) else "no such folder"
        raise DataError(f"{path} cannot be read (no such file; there: {there}): {advice}.")
    return read_file(path, max_bytes)


def read_lines(path: str, what: str = "the split's names") -> list[str]:
    """The lines of a text file that are not blank, stripped; they are `what`.

    Raises:
      DataError: it is not there, or has no lines; or a line is there twice.
    """
    text = read_listed(path, f"it has to list {what}, one on a line")
    # As the names of files come, which need not be UTF-8.
    lines = text.decode("utf-8-sig", "surrogateescape").splitlines()
    lines = [line.strip() for line in lines if line.strip()]
    if not lines:
        raise DataError(f"{path} is empty: it has to list {what}, one on a line.")
    if len(set(lines)) < len(lines):
        seen: set[str] = set()
        twice = [line for line in lines if line in seen or seen.add(line)]
        raise DataError(f"{path} has {len(twice)} names twice: {listed(twice)}.")
    return lines


def check_files(paths: Sequence[str], what: str) -> None:
    """Names and counts files that are not there.

    Raises:
      DataError: some are not.
    """
    folders: dict[str, set[str]] = {}  # listing a folder is quicker than asking for each file
    missing = []
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        if name not in folders[folder]:
            missing.append(path)
    if missing:
        raise BadList(
            f"{len(missing)} of {len(paths)} {what} are missing: {listed(missing, NAMED)}.", missing
        )


def find_images(folder: str, names: Sequence[str], what: str) -> list[str]:
    """The image of each name in `folder`, given with its suffix or without.

    Raises:
      DataError: some are not there, or a name without suffix has several.
    """
    files = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    images = [f for f in files if f.lower().endswith(IMAGE_SUFFIXES) and f[0] != "."]
    by_name: dict[str, list[str]] = {f: [f] for f in images}
    for file in images:
        by_name.setdefault(os.path.splitext(file)[0], []).append(file)
    missing = [name for name in names if name not in by_name]
    if missing:
        # Perhaps they are there in a form that is not looked for.
        stems = {os.path.splitext(file)[0]: file for file in files}
        others = [stems[name] for name in missing if name in stems]
        there = f"; there are {listed(others, NAMED)}" if others else ""
        raise BadList(
            f"{len(missing)} of {len(names)} {what} are missing in {folder}:"
            f" {listed(missing, NAMED)} (looked for {', '.join(IMAGE_SUFFIXES)}{there}).",
            missing,
        )
    if several := [" and ".join(by_name[name]) for name in names if len(by_name[name]) > 1]:
        raise DataError(
            f"{len(several)} {what} are ambiguous in {folder}: {listed(several)}. Remove one, or"
            " write the suffix into the list."
        )
    return [os.path.join(folder, by_name[name][0]) for name in names]
