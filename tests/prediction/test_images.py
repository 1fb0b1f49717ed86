"""Files that the command line names."""

import pathlib

import pytest

from inputs.images import DataError
from prediction.images import pictures_of


def make(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_pictures_of_the_same_name_do_not_replace_each_other(tmp_path):
    make(tmp_path, "a/x.png", "a/x.jpg", "b/x.png", "b/c/y.webp", "a/notes.txt", "a/._x.jpg")
    names = ["a", "b", "b/x.png", "missing.png"]
    files = pictures_of([str(tmp_path / name) for name in names], tmp_path / "out")
    assert {path.removeprefix(f"{tmp_path}/"): picture for path, picture in files.items()} == {
        "a/x.jpg": "x.png",
        "a/x.png": "x-2.png",
        "b/c/y.webp": "c_y.png",
        "b/x.png": "x-3.png",
        "missing.png": "missing.png",
    }


def test_no_images_are_an_error(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(DataError, match="holds no images"):
        pictures_of([str(tmp_path)], out)
    with pytest.raises(DataError, match="no images are given"):
        pictures_of([], out)


def test_pictures_of_before_are_no_images(tmp_path, monkeypatch):
    make(tmp_path, "x.jpg", "sub/x.jpg", "sub/found/x.png", "sub/found/masks/x.png")
    monkeypatch.chdir(tmp_path)
    files = pictures_of(["."], tmp_path / "sub" / "found")
    assert files == {"sub/x.jpg": "sub_x.png", "x.jpg": "x.png"}


@pytest.mark.parametrize("names", [["."], ["x.png"], ["../here/x.png"]])
def test_an_image_is_never_replaced_by_its_picture(tmp_path, monkeypatch, names):
    make(tmp_path, "here/x.png")
    monkeypatch.chdir(tmp_path / "here")
    for out in (tmp_path / "here", pathlib.Path("../here"), pathlib.Path()):
        with pytest.raises(DataError, match=f"^{out} holds images that are given"):
            pictures_of(names, out)
