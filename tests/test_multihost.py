"""Two processes as two hosts: the same run as one process with two devices."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parent.parent

pytestmark = pytest.mark.slow


def start(workdir, *arguments, devices=1):
    environment = os.environ | {
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_NUM_CPU_DEVICES": str(devices),
    }
    command = [sys.executable, "train.py", "--config", "tests/tiny.py", "--workdir", str(workdir)]
    return subprocess.Popen(
        command + list(arguments),
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def start_two(workdir):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [start(workdir, f"--multihost=127.0.0.1:{port},2,{index}") for index in range(2)]


def finish(processes, code=0):
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [code] * len(processes), outputs
    return outputs


def records(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_two_hosts_are_one_run(tmp_path):
    one = start(tmp_path / "one", devices=2)
    finish([one])
    finish(start_two(tmp_path / "two"))
    one, two = records(tmp_path / "one"), records(tmp_path / "two")
    assert [r["step"] for r in two] == list(range(1, 13))
    for name in ("train/loss", "kept/group4", "eval/loss", "eval/examples"):
        values = [[r[name] for r in run if name in r] for run in (one, two)]
        # The same data, masks and statistics; sums over devices may be taken in another order.
        assert values[1] == pytest.approx(values[0], rel=1e-3), name


def test_hosts_stop_together_and_go_on(tmp_path):
    workdir = tmp_path / "run"
    processes = start_two(workdir)
    metrics = workdir / "metrics.jsonl"
    while processes[0].poll() is None and not (metrics.exists() and metrics.read_text()):
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGTERM)
    outputs = finish(processes, code=143)
    assert "is saved" in outputs[0]
    assert "going on from step" in finish(start_two(workdir))[0]
    assert [r["step"] for r in records(workdir)] == list(range(1, 13))
    assert [r["step"] for r in records(workdir) if "eval/top1" in r] == [6, 12]
