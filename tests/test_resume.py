"""Resuming is exact with XLA's optimisations on: other tests of it compile lightly."""

import functools
import os
import re
import shutil
import signal
import time

import pytest

import processes
import random_runs
import tiny
import tiny_detection
import tiny_segmentation
from processes import state, untimed


@pytest.mark.parametrize(
    ("config", "last"),
    [
        (tiny, 12),
        pytest.param(tiny_detection, 6, marks=pytest.mark.slow),
        pytest.param(tiny_segmentation, 6, marks=pytest.mark.slow),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_kill_changes_nothing_where_xla_optimizes(tmp_path, config, last):
    start = functools.partial(processes.start, config=f"tests/{config.__name__}.py", optimized=True)
    whole, workdir = tmp_path / "whole", tmp_path / "run"
    # Not from a network of its own: to compile the initialisers would take most of the time.
    random_runs.save(config.get_config(), whole / "checkpoints")
    process = start(whole)
    # An evaluation follows, which is traced for longer than it takes to see this.
    while process.poll() is None and not list(whole.glob("checkpoints/[1-9]*/manifest.json")):
        time.sleep(0.01)
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)  # until it stands still
    shutil.copytree(whole, workdir)  # what a SIGKILL would leave, and the run itself goes on
    process.send_signal(signal.SIGCONT)
    processes.finish(process)
    assert not (workdir / "result.json").exists()
    output = processes.finish(start(workdir))
    assert re.search(rf"going on from step [1-9]\d* of {last}\n", output)
    assert state(workdir, last) == state(whole, last)
    assert untimed(workdir) == untimed(whole)
