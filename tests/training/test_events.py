"""TensorBoard's events are written, and their loss stops nothing."""

import contextlib
import os
import time

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter

from training.events import Events


def read(folder):
    """The events of a file: each a length, its checksum, the bytes, and theirs."""
    (path,) = folder.glob("events.out.tfevents.*")
    data, events = path.read_bytes(), []
    while data:
        length = int.from_bytes(data[:8], "little")
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return events


def test_numbers_and_pictures_are_written(tmp_path):
    began = time.time()
    with contextlib.closing(Events(tmp_path, None)) as events:
        events.scalar("train/loss", 0.5, 3)
        events.picture("examples", np.full((4, 6, 3), 9, np.uint8), 4)
        events.flush()
        head, scalar, picture = read(tmp_path)
    assert head.file_version == "brain.Event:2"
    (value,) = scalar.summary.value
    assert (scalar.step, value.tag, value.simple_value) == (3, "train/loss", 0.5)
    (value,) = picture.summary.value
    assert (picture.step, value.tag, value.image.height, value.image.width) == (4, "examples", 4, 6)
    assert all(began <= event.wall_time <= time.time() for event in (scalar, picture))


def test_a_run_that_goes_on_hides_what_runs_again(tmp_path):
    Events(tmp_path, 8).close()
    head, start = read(tmp_path)
    assert head.file_version == "brain.Event:2" and start.step == 8
    assert start.session_log.status == SessionLog.START


def test_events_can_be_read_while_a_run_is_under_way(tmp_path, monkeypatch):
    events = Events(tmp_path, None)
    events.scalar("a", 1.0, 1)
    assert read(tmp_path) == []  # not each by itself: it would take time
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 31)
    events.scalar("a", 2.0, 2)
    assert [event.step for event in read(tmp_path)] == [0, 1, 2]
    events.scalar("a", 3.0, 3)
    assert len(read(tmp_path)) == 3
    events.close()
    assert len(read(tmp_path)) == 4


def test_a_full_disk_is_one_warning_and_no_hang(tmp_path, monkeypatch, caplog):
    """/dev/full takes nothing; tensorboardX's own writer waits for ever at the 11th event."""
    events = Events(tmp_path, None)
    events._writer.close()
    events._writer = RecordWriter("/dev/full")
    for step in range(2000):
        events.scalar("train/loss", 1.0, step)
        events.picture("examples", np.zeros((4, 4, 3), np.uint8), step)
    events.flush()
    events.close()
    (record,) = caplog.records
    assert record.levelname == "WARNING" and str(tmp_path) in record.message
    assert "No space left on device" in record.message


@pytest.mark.parametrize("at", ["flush", "write", "open"])
def test_events_may_fail_at_any_point(tmp_path, monkeypatch, caplog, at):
    def fail(*_):
        raise OSError(30, "Read-only file system")

    name = {"open": "__init__"}.get(at, at)
    monkeypatch.setattr(RecordWriter, name, fail)
    events = Events(tmp_path / "events", 3)
    events.scalar("a", 1.0, 4)
    events.flush()
    events.close()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "Read-only file system" in caplog.text and os.path.isdir(tmp_path / "events")
