"""metrics.jsonl has each step once, none missing, also after a kill."""

import contextlib
import json
import os
import re
import time

import jax
import pytest
from PIL import Image

from training import logging as logging_lib
from training import records
from training.files import WriteError
from training.logging import MetricsLog, Progress


def line(step, **fields):
    base = {"step": step, "epoch": step / 10, "time/seconds": 1.0 * step}
    return base | {name.replace("__", "/"): value for name, value in fields.items()}


def write(folder, resume, steps):
    with contextlib.closing(MetricsLog(folder, resume)) as log:
        for step in steps:
            log.write(line(step, train__loss=1.0 / step))
        log.flush()
        return log.records


def steps(folder):
    return [record["step"] for record in records.read(folder / "metrics.jsonl")[0]]


def test_lines_of_steps_that_run_again_are_cut(tmp_path):
    write(tmp_path, 0, [1, 2, 3, 4])
    written = write(tmp_path, 2, [3, 4, 5])
    assert steps(tmp_path) == [1, 2, 3, 4, 5] == [record["step"] for record in written]


def test_what_a_line_lacked_joins_it(tmp_path):
    write(tmp_path, 0, [1, 2])
    with contextlib.closing(MetricsLog(tmp_path, 2)) as log:
        assert not log.evaluated(2, "top1")
        log.write(line(2, eval__top1=50.0))
        assert log.evaluated(2, "top1") and not log.evaluated(1, "top1")
        assert not log.evaluated(2, "AP")
        log.write(line(3))
        assert not log.evaluated(2, "top1")
    lines, _ = records.read(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert lines[1] == line(2, train__loss=0.5, eval__top1=50.0)


def test_a_line_cut_short_by_a_kill_is_dropped(tmp_path):
    write(tmp_path, 0, [1, 2])
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 3, "tra')
    assert steps(tmp_path) == [1, 2]
    write(tmp_path, 2, [3])
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]


def test_events_are_written(tmp_path):
    Image.new("RGBA", (9, 5), "red").save(tmp_path / "red.png")
    with contextlib.closing(MetricsLog(tmp_path, 0)) as log:
        log.write(line(1, train__loss=1.0))
        log.picture("examples", tmp_path / "red.png", 1)
    (events,) = (tmp_path / "tensorboard").glob("events*")
    assert all(name in events.read_bytes() for name in (b"train/loss", b"examples", b"PNG"))


def test_a_line_is_there_as_soon_as_it_is_written(tmp_path):
    with contextlib.closing(MetricsLog(tmp_path, 0)) as log:
        for step in (1, 2, 3):
            log.write(line(step, train__loss=1.0 * step))
            assert steps(tmp_path) == list(range(1, step + 1)) == [r["step"] for r in log.records]
        log.write({"step": 3, "eval/top1": 0.3})
        log.write(line(4))
        lines = [line(step, train__loss=1.0 * step) for step in (1, 2, 3)]
        assert log.records == [*lines[:2], lines[2] | {"eval/top1": 0.3}, line(4)]
        assert records.read(tmp_path / "metrics.jsonl") == (log.records, [])


def test_a_damaged_line_is_named_the_file_kept_and_no_good_line_lost(tmp_path, caplog):
    write(tmp_path, 0, range(1, 7))
    path = tmp_path / "metrics.jsonl"
    damaged = path.read_bytes().replace(b'{"step": 3', b'{"st#p\xff: 3')
    path.write_bytes(damaged)
    write(tmp_path, 5, [6, 7])
    assert steps(tmp_path) == [1, 2, 4, 5, 6, 7]
    (aside,) = tmp_path.glob("metrics.damaged-*.jsonl")
    assert aside.read_bytes() == damaged
    assert f"{path}: lines 3 are damaged" in caplog.text and aside.name in caplog.text
    caplog.clear()
    write(tmp_path, 7, [8])
    assert not caplog.records and len(list(tmp_path.glob("metrics.damaged-*"))) == 1


class Events:
    """In the place of those of TensorBoard."""

    def __init__(self, folder, purge_step):
        self.calls = [("open", folder.name, purge_step)]

    def __getattr__(self, name):
        return lambda *arguments: self.calls.append((name, *arguments))


def test_tensorboard_has_the_same_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(logging_lib, "Events", Events)
    for resume, purge in ((0, None), (7, 8)):
        log = MetricsLog(tmp_path, resume)
        log.write({"step": 8, "epoch": 0.5, "train/loss": 2.0})
        log.flush()
        log.close()
        assert log._events.calls == [
            ("open", "tensorboard", purge),
            ("scalar", "epoch", 0.5, 8),
            ("scalar", "train/loss", 2.0, 8),
            ("flush",),
            ("close",),
        ]


def test_a_full_disk_is_told_with_the_files_name(tmp_path, monkeypatch):
    """/dev/full takes nothing."""
    log = MetricsLog(tmp_path, 0)
    message = f"{tmp_path / 'metrics.jsonl'} cannot be written: "
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", lambda _: exec("raise OSError(5, 'Input/output error')"))
        with pytest.raises(WriteError, match=message + "Input/output error"):
            log.flush()
    with open("/dev/full", "w") as full:
        os.dup2(full.fileno(), log._file.fileno())
    for act in (lambda: log.write(line(1)), log.close):
        with pytest.raises(WriteError, match=message + "No space left on device"):
            act()


def test_lines_are_on_the_disk_before_a_checkpoint(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.fstat(number).st_ino))
    with contextlib.closing(MetricsLog(tmp_path, 0)) as log:
        log.write(line(1))
        log.flush()
    assert (tmp_path / "metrics.jsonl").stat().st_ino in synced


def test_process_0_alone_writes_and_prints(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert write(tmp_path / "run", 0, [1, 2]) == []
    with contextlib.closing(MetricsLog(tmp_path / "run", 0)) as log:
        log.picture("examples", tmp_path / "none.png", 1)
    assert not (tmp_path / "run").exists()
    with Progress(100) as progress:
        progress.print("a word")
        progress.step(1)
        progress.log({"step": 1, "epoch": 0.1})
    assert capsys.readouterr().out == ""


def test_a_plain_line_says_what_its_record_holds(capsys):
    with Progress(100) as progress:
        progress.begin(9)  # no speed of its own yet
        progress.log(
            {"step": 7, "epoch": 0.126, "eval/AP": 12.345, "eval/AP/cat": 1.0, "kept/a": 1}
        )
        evaluated = {"eval/loss": 0.12346, "eval/examples": 50}
        progress.log({"step": 8, "epoch": 1.0, "time/images_per_second": 12.6} | evaluated)
        progress.log({"step": 9, "epoch": 1.0, "time/images_per_second": 0.126, "train/top1": 5.0})
        progress.print(f"[bold]no markup[/bold] {'and one line ' * 20}")
    assert capsys.readouterr().out.splitlines() == [
        "step 7/100  epoch 0.13  eval/AP 12.35",
        "step 8/100  epoch 1.00  13 images/s  eval/loss 0.1235  eval/examples 50",
        "step 9/100  epoch 1.00  0.13 images/s",
        f"[bold]no markup[/bold] {'and one line ' * 20}",
    ]


def test_a_terminal_has_a_bar(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Progress(100, batch_size=8) as progress:
        progress._bar.refresh()
        progress.begin(40)
        assert progress._live
        now[0] = 5.0
        progress.step(50)
        progress._bar.refresh()
        progress.log({"step": 50, "epoch": 1.0, "train/loss": 0.25})
        progress._bar.refresh()
        with progress.doing("evaluating", again=True):
            progress.evaluating(3, 9)
            progress._bar.refresh()
        progress.log({"step": 60, "epoch": 1.5, "eval/top1": 0.75})
        progress.print("a word 12")
    out = re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().out)
    assert "0/100" in out.split("40/100")[0].split("50/100")[0]  # there from the beginning
    assert re.search("50/100 ETA 0:00:25 16 images/s", out)
    assert "loss 0.2500" in out and "a word 12" in out and "step 50" not in out
    assert "50/100 ETA 0:00:25 evaluating 3/9" in out
    assert "step 60/100  epoch 1.50  eval/top1 0.75" in out  # stays above the bar


def test_plain_lines_without_a_terminal(monkeypatch, capsys):
    with Progress(100) as progress:
        progress.begin(1)
        now = time.monotonic() + 2.5
        monkeypatch.setattr(time, "monotonic", lambda: now)
        progress.step(2)
        record = {"step": 2, "epoch": 0.02, "train/loss": 0.5, "sched/keep_prob": 0.9}
        times = {"time/step_ms": 2500.0, "time/input_wait_ms": 3.4, "time/host_ms": 7.6}
        progress.log(record | times | {"eval/top1": 98.5})
    assert capsys.readouterr().out == (
        "step 2/100  epoch 0.02  loss 0.5000  keep_prob 0.900  2500 ms/step  input wait 3 ms  "
        "host 8 ms  eval/top1 98.50  ETA 0:04:05\n"
    )


@pytest.mark.parametrize("terminal", [False, True])
def test_what_is_compiled_is_said_before_and_after(monkeypatch, capsys, terminal):
    if terminal:
        for name, value in (("FORCE_COLOR", "1"), ("TERM", "xterm"), ("COLUMNS", "120")):
            monkeypatch.setenv(name, value)
    with Progress(100) as progress:
        with progress.compiling("the training step"):
            before = capsys.readouterr().out if not terminal else ""
        progress.print("a word")
    out = re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", before + capsys.readouterr().out)
    assert "compiling the training step" in (out if terminal else before)
    assert re.search(r"compiled the training step in \d+\.\d s\s", out)
