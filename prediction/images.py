"""The image files that a command line names."""

import pathlib

from inputs.files import IMAGE_SUFFIXES
from inputs.images import DataError


def pictures_of(names: list[str], out: pathlib.Path) -> dict[str, str]:
    """A picture's name for each image file: `{path: name}`.

    Args:
      names: of files, and of folders whose images (by suffix) are taken, those of subfolders too.
      out: the folder for pictures: what is in it already is passed over.

    Raises:
      DataError: nothing is given, a folder holds no image, or a picture could replace an image.
    """
    files: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        folder = pathlib.Path(name)
        found = _below(folder, out) if folder.is_dir() else [folder]
        for path in found:
            if str(path) in files:
                continue
            below = path.relative_to(folder) if folder.is_dir() else pathlib.Path(path.name)
            stem = "_".join(below.with_suffix("").parts)
            unique, number = f"{stem}.png", 1
            while unique in taken:
                number += 1
                unique = f"{stem}-{number}.png"
            taken.add(unique)
            files[str(path)] = unique
    if not files:
        raise DataError("no images are given: name files or folders after --images.")
    if out.resolve() in {folder.resolve() for folder in set(map(_parent, files))}:
        raise DataError(
            f"{out} holds images that are given, which pictures could replace: give another --out."
        )
    return files


def _parent(path: str) -> pathlib.Path:
    return pathlib.Path(path).parent


def _below(folder: pathlib.Path, out: pathlib.Path) -> list[pathlib.Path]:
    """The images in a folder and its subfolders, but for those in `out`."""
    # Hidden files are none of the user's: macOS leaves "._name.jpg" beside "name.jpg".
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "."
    )
    inside = out.resolve()
    if inside != folder.resolve() and inside.is_relative_to(folder.resolve()):
        ours = folder / inside.relative_to(folder.resolve())
        found = [path for path in found if ours not in path.parents]
    if not found:
        raise DataError(f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES)}).")
    return found
