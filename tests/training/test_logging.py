"""metrics.jsonl has each step once, none missing, also after a kill."""

import contextlib
import json

from PIL import Image

from training.logging import MetricsLog, Progress, read_metrics


def write(folder, resume, steps):
    with contextlib.closing(MetricsLog(folder, resume)) as log:
        for step in steps:
            log.write({"step": step, "epoch": step / 10, "train/loss": 1.0 / step})
        log.flush()
        return log.records


def steps(folder):
    return [record["step"] for record in read_metrics(folder / "metrics.jsonl")]


def test_lines_of_steps_that_run_again_are_cut(tmp_path):
    write(tmp_path, 0, [1, 2, 3, 4])
    records = write(tmp_path, 2, [3, 4, 5])
    assert steps(tmp_path) == [1, 2, 3, 4, 5] == [record["step"] for record in records]


def test_what_a_line_lacked_joins_it(tmp_path):
    write(tmp_path, 0, [1, 2])
    with contextlib.closing(MetricsLog(tmp_path, 2)) as log:
        log.write({"step": 2, "epoch": 0.2, "eval/top1": 50.0})
        log.write({"step": 3, "epoch": 0.3})
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert lines[1] == {"step": 2, "epoch": 0.2, "train/loss": 0.5, "eval/top1": 50.0}


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
        log.write({"step": 1, "train/loss": 1.0})
        log.picture("examples", tmp_path / "red.png", 1)
    (events,) = (tmp_path / "tensorboard").glob("events*")
    assert all(name in events.read_bytes() for name in (b"train/loss", b"examples", b"PNG"))


def test_plain_lines_without_a_terminal(capsys):
    with Progress(100, 0, 8) as progress:
        assert progress.images_per_second(1) == 0.0
        progress.resume(1)
        progress.step(2)
        record = {"step": 2, "epoch": 0.02, "train/loss": 0.5, "sched/keep_prob": 0.9}
        rate = progress.images_per_second(2)
        progress.log(record | {"time/images_per_second": rate, "eval/top1": 98.5})
    out = capsys.readouterr().out
    assert rate > 0 and "step 2/100  epoch 0.02  loss 0.5000  keep_prob 0.900" in out
    assert "eval/top1 98.50" in out
