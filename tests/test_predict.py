"""Files that the command line names."""

import pytest

from inputs.images import DataError
from predict import pictures_of


def test_pictures_of_the_same_name_do_not_replace_each_other(tmp_path):
    for name in ("a/x.png", "a/x.jpg", "b/x.png", "b/c/y.webp", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    names = ["a", "b", "b/x.png", "missing.png"]
    files = pictures_of([str(tmp_path / name) for name in names])
    assert {path.removeprefix(f"{tmp_path}/"): picture for path, picture in files.items()} == {
        "a/x.jpg": "x.png",
        "a/x.png": "x-2.png",
        "b/c/y.webp": "c_y.png",
        "b/x.png": "x-3.png",
        "missing.png": "missing.png",
    }


def test_no_images_are_an_error(tmp_path):
    with pytest.raises(DataError, match="holds no images"):
        pictures_of([str(tmp_path)])
    with pytest.raises(DataError, match="no images are given"):
        pictures_of([])
