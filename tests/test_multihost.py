"""Two processes as two hosts: the same run as one process with two devices."""

import signal
import socket
import time

import pytest

from processes import finish, records, run, start

pytestmark = pytest.mark.slow


def start_two(workdir):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [start(workdir, f"--multihost=127.0.0.1:{port},2,{index}") for index in range(2)]


def finish_all(processes, code=0):
    return [finish(process, code) for process in processes]


def test_two_hosts_are_one_run(tmp_path):
    run(tmp_path / "one", devices=2)
    finish_all(start_two(tmp_path / "two"))
    one, two = records(tmp_path / "one"), records(tmp_path / "two")
    assert [r["step"] for r in two] == list(range(1, 13))
    for name in ("train/loss", "kept/group4", "eval/loss", "eval/examples"):
        values = [[r[name] for r in lines if name in r] for lines in (one, two)]
        # The same data, masks and statistics; sums over devices may be taken in another order.
        assert values[1] == pytest.approx(values[0], rel=1e-3), name
    # The same command again: both know that all is done, though only one has the log.
    before = records(tmp_path / "two")
    finish_all(start_two(tmp_path / "two"))
    assert records(tmp_path / "two") == before


def test_hosts_stop_together_and_go_on(tmp_path):
    workdir = tmp_path / "run"
    processes = start_two(workdir)
    metrics = workdir / "metrics.jsonl"
    while processes[0].poll() is None and not (metrics.exists() and metrics.read_text()):
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGTERM)
    outputs = finish_all(processes, code=143)
    assert "is saved" in outputs[0]
    assert "going on from step" in finish_all(start_two(workdir))[0]
    assert [r["step"] for r in records(workdir)] == list(range(1, 13))
    assert [r["step"] for r in records(workdir) if "eval/top1" in r] == [6, 12]
