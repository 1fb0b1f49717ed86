"""Records are read from what is left of a metrics.jsonl, and what is not is said."""

import json
import os
import random

import pytest

from training import records
from training.config import ConfigError


def line(step):
    return json.dumps({"step": step, "epoch": step / 10, "time/seconds": 2.5 * step}).encode()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def read(path, *lines, end=b"\n"):
    path.write_bytes(b"\n".join(lines) + end)
    found, damaged = records.read(path)
    return [record["step"] for record in found], damaged


@pytest.mark.parametrize(
    "damaged",
    [
        b'{"step": 2, "epo',
        b"\xff\xfe",
        b"[1]",
        b"3",
        b"null",
        b'{"stop": 2}',
        b'{"step": null}',
        b'{"step": 2}',
        line(2).replace(b"epoch", b"epocj"),
        line(2).replace(b"time/", b"tine/"),
        line(2).replace(b"2,", b"2.0,"),
        line(2).replace(b"2,", b"true,"),
        line(2).replace(b"5.0", b'"5"'),
        b"[" * 100_000,
        b"9" * 5000,
    ],
)
def test_a_line_that_is_no_record_is_named_wherever_it_stands(path, damaged):
    whole = [line(1), line(2), line(3)]
    assert read(path, *whole) == ([1, 2, 3], [])
    for place in range(4):
        assert read(path, *whole[:place], damaged, *whole[place:]) == ([1, 2, 3], [place + 1])


def test_a_last_line_cut_short_is_no_damage(path):
    for length in range(len(line(3))):
        assert read(path, line(1), line(2), line(3)[:length], end=b"") == ([1, 2], [])
    assert read(path, line(1), line(2), end=b"") == ([1, 2], [])
    assert read(path, line(1), b"", line(2), b" ") == ([1, 2], [])
    assert read(path, end=b"") == ([], [])


@pytest.mark.parametrize(
    ("steps", "kept", "damaged"),
    [
        ([1, 2, 3, 6, 5, 6, 7], [1, 2, 3, 5, 6, 7], [4]),
        ([1, 2, 3, 4, 2, 6], [1, 2, 3, 4, 6], [5]),
        ([9, 2, 3], [2, 3], [1]),
        ([1, 2, 2, 3], [1, 2, 3], [2]),
        ([1, 2, 1], [1, 2], [3]),
    ],
)
def test_a_line_out_of_order_is_damaged_and_its_neighbours_are_not(path, steps, kept, damaged):
    assert read(path, *map(line, steps)) == (kept, damaged)


def test_any_flipped_bit_costs_one_line_at_most(path):
    """Of values it cannot be noticed; of what holds a record, its line is named."""
    text = b"".join(line(step) + b"\n" for step in range(1, 9))
    for bit in random.Random(0).sample(range(8 * len(text)), 300):
        data = bytearray(text)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        found, damaged = records.read(path)
        at = text[: bit // 8].count(b"\n") + 1
        newline = text[bit // 8] == ord("\n")
        good = {*range(1, 9)} - ({at, at + 1} if newline else {at})
        assert good <= {record["step"] for record in found}
        assert set(damaged) <= {at, at + 1}


def test_what_is_no_file_is_an_error(path):
    path.mkdir()
    with pytest.raises(ConfigError, match="metrics.jsonl is not a file: remove it"):
        records.read(path)
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="is not a file"):
        records.read(path)


def test_the_file_is_kept_aside_as_it_was(path, caplog):
    path.write_bytes(b"anything\xff")
    records.keep_aside(path, [3, 5])
    records.keep_aside(path, [3, 5])
    first, second = path.parent.glob("metrics.damaged-*.jsonl")
    assert first.read_bytes() == second.read_bytes() == path.read_bytes()
    assert f"{path}: lines 3, 5 are damaged and left out" in caplog.text
    assert first.name in caplog.text and second.name in caplog.text
