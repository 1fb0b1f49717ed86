"""What others wrote is read with care: each kind of it in its one place."""

import os

import pytest

from inputs.images import MAX_PIXELS, image_size, read_image
from inputs.reading import (
    DataError,
    inside,
    integer,
    is_integer,
    is_name,
    number,
    parse_json,
    read_file,
)
from photos import encoded, photo

NOT_FILES = {
    "pipe": (os.mkfifo, "is a device or a pipe, no file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "is a device or a pipe, no file"),
    "folder": (os.mkdir, "Is a directory"),
    "loop": (lambda path: path.symlink_to(path), "symbolic links"),
    "dangling": (lambda path: path.symlink_to("nowhere"), "No such file"),
    "memory": (lambda path: path.symlink_to("/proc/self/mem"), "is empty"),
}


@pytest.mark.parametrize("read", [read_image, lambda path: image_size(path, path)])
@pytest.mark.parametrize("name", NOT_FILES)
def test_only_regular_files_are_read(tmp_path, name, read):
    make, reason = NOT_FILES[name]
    make(tmp_path / "a.png")
    with pytest.raises(DataError, match=rf"a\.png .*{reason}|Input/output"):
        read(str(tmp_path / "a.png"))


def test_files_have_a_bound(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(photo(), "PNG"))
    assert read_file(str(path), path.stat().st_size) == path.read_bytes()
    with pytest.raises(DataError, match=rf"a.png has {path.stat().st_size} bytes, expected at"):
        read_file(str(path), path.stat().st_size - 1)
    os.truncate(path, 2**40)
    with pytest.raises(DataError, match=r"a\.png has 1099511627776 bytes"):
        read_image(str(path))
    with pytest.raises(DataError, match="null byte"):
        read_file(f"{path}\0")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_images_have_a_bound(tmp_path):
    size = int(MAX_PIXELS**0.5) + 1
    gif = encoded(photo(), "GIF")
    path = tmp_path / "a.png"
    path.write_bytes(gif[:6] + 2 * size.to_bytes(2, "little") + gif[10:])
    with pytest.raises(DataError, match=rf"a\.png .*it has {size} x {size} pixels, more than"):
        read_image(str(path))


def test_a_png_that_looks_whole_is_read_only_if_it_is(tmp_path):
    path, image = tmp_path / "a.png", encoded(photo(), "PNG")
    for place in range(len(image)):
        path.write_bytes(image[:place] + bytes([image[place] ^ 16]) + image[place + 1 :])
        with pytest.raises(DataError, match=r"a\.png cannot be decoded"):
            read_image(str(path))


@pytest.mark.parametrize("text", ["1e400", "nan", "-inf", "1_0", "٣", "", "one", "9" * 400])
def test_numbers_are_finite_and_decimal(text):
    with pytest.raises(ValueError, match="is no finite number"):
        number(text)


def test_integers_have_64_bits():
    assert [number(" 1e2\n"), number("-.5"), integer("-7"), integer(2**63 - 1)] == [
        *(100, -0.5, -7, 2**63 - 1)
    ]
    for value in (2**63, 1.0, True, None, "1.0", "9" * 19, "1_0", [1]):
        with pytest.raises(ValueError, match="is no integer"):
            integer(value)
    assert is_integer(3, 0, 3) and is_integer(3.0, 0, 3)
    for value in (4, 2.5, True, "3", None, float("nan"), float("inf"), [3]):
        assert not is_integer(value, 0, 3)


def test_names_can_be_printed():
    assert all(map(is_name, ("a", "hot\u00a0dog", "ü", "$\\foo$", "😀")))
    assert not any(map(is_name, ("", " ", "a\0", "a\nb", "\ud800", None, 3)))


@pytest.mark.parametrize(
    "text, reason",
    [
        (b"[" * 100_000, "nested too deep"),
        (b'{"a": 1, "b": [{"c": 1, "c": 2}]}', "one object has 'c' twice"),
        (b"9" * 5000, "4300"),
        (b"\xff\xfe\xff", "no JSON"),
        (b"{", "no JSON"),
    ],
)
def test_json_is_refused_by_its_name(text, reason):
    with pytest.raises(DataError, match=f"^a.json .*{reason}"):
        parse_json(text, "a.json")


def test_paths_lie_in_their_folder():
    assert inside("/data", "a/b..c.png", "it") == "/data/a/b..c.png"
    for name in ("/etc/passwd", "../x", "a/../../x", "..", "a\0"):
        with pytest.raises(DataError, match="^it is .*, which does not lie in /data"):
            inside("/data", name, "it")
