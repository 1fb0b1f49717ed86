"""What is shown while images are predicted."""

import io

import pytest
import rich.console

from prediction import progress as progress_lib
from prediction.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    times = [100.0]
    monkeypatch.setattr(progress_lib.time, "monotonic", lambda: times[0])
    return times


def steps(progress, clock, *pairs):
    with progress:
        for done, time in pairs:
            clock[0] = 100.0 + time
            progress.step(done)


def test_plain_lines_tell_the_rate_without_the_first_batch(clock, capsys):
    progress = Progress(1000)
    steps(progress, clock, (10, 60), (11, 60.1), (20, 65), (110, 71), (210, 81.5), (1000, 100))
    assert capsys.readouterr().out.splitlines() == [
        "10/1000 images",
        "110/1000 images  9.1 images/s  ETA 0:01:38",
        "210/1000 images  9.3 images/s  ETA 0:01:25",
    ]


def test_a_terminal_has_a_bar(clock, monkeypatch):
    file = io.StringIO()
    make = rich.console.Console
    monkeypatch.setattr(
        rich.console,
        "Console",
        lambda **options: make(**options, file=file, force_terminal=True, width=100),
    )
    steps(Progress(1000), clock, (10, 60), (110, 70))
    text = file.getvalue()
    assert "110/1000" in text and "10.0 images/s  ETA 0:01:29" in text


def test_other_processes_are_silent(clock, capsys):
    progress = Progress(1000, enabled=False)
    steps(progress, clock, (10, 60), (500, 100))
    progress.print("a line")
    assert capsys.readouterr().out == ""
