"""Files that are whole or not there, and what is said of those that cannot be."""

import os
import pathlib

import pytest
from etils import epath

from training.files import WriteError, read_object, write, writing


def test_a_file_is_written_with_its_folders_and_nothing_beside_it(tmp_path):
    path = tmp_path / "a" / "b" / "c.json"
    for text in ("one", "two"):
        write(path, text)
        assert path.read_text() == text
        assert [file.name for file in path.parent.iterdir()] == ["c.json"]


def test_a_file_that_cannot_be_written_is_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "c.json"
    write(path, "one")

    def full(self, text):
        with open(self, "w") as file:
            file.write(text[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_text", full)
    with pytest.raises(WriteError, match=f"^{path} cannot be written: No space left on device$"):
        write(path, "two")
    assert path.read_text() == "one" and [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(30, "Read-only file system"), "Read-only file system"),
        (PermissionError(13, "Permission denied", "x"), "Permission denied"),
        (OSError("the bucket is gone"), "the bucket is gone"),
        (ValueError("RESOURCE_EXHAUSTED: a [os_error_code='28']"), os.strerror(28)),
    ],
)
def test_what_the_system_says_is_told(error, reason):
    refused = pytest.raises(WriteError, match=f"^it cannot be written: {reason}$")
    with refused as told, writing("something else"), writing("it"):
        raise error
    assert told.value.__cause__ is error


def test_other_errors_are_not_of_writing():
    for error in (ValueError("no"), KeyError("no")):
        with pytest.raises(type(error), match="no"), writing("it"):
            raise error


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"[1]", "it is not a JSON object"),
        (b"3", "it is not a JSON object"),
        (b"{", "Expecting"),
        (b"\xff\xfe", "utf-8"),
        (b"[" * 100_000, "it is nested too deep"),
    ],
)
def test_what_is_no_json_object_is_said(tmp_path, data, message):
    path = tmp_path / "c.json"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        read_object(path)
    write(path, '{"a": {"b": [1]}}')
    assert read_object(path) == {"a": {"b": [1]}}


def test_only_files_are_read(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_object(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe")
    for path in (
        tmp_path,
        tmp_path / "pipe",
        epath.Path(tmp_path / "pipe"),
        pathlib.Path("/dev/zero"),
    ):
        with pytest.raises(ValueError, match="it is not a file"):
            read_object(path)
