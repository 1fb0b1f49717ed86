"""The benchmarks run, and what they hold DropBlock against is DropBlock."""

import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import processes
import tiny
from benchmarks import detection, dropblock_op, mc_samples, timing, train_step
from dropblock import dropblock


def test_every_function_runs_once_in_every_round():
    calls = []
    cases = {name: lambda name=name: calls.append(name) for name in "abc"}
    medians = timing.side_by_side(cases, 4)
    assert set(medians) == set("abc") and all(seconds >= 0 for seconds in medians.values())
    assert calls[:3] == list("abc")
    assert all(set(calls[n : n + 3]) == set("abc") for n in range(0, 15, 3))


def test_a_case_that_runs_many_times_is_waited_for_once():
    calls, waits = [], []

    def case():
        calls.append(time.sleep(0.01))
        return len(calls)

    (seconds,) = timing.rounds({"a": case}, 1, calls=5, wait=waits.append)["a"]
    assert waits == [1, 6]  # after the one that is not measured, and after all
    assert 0.01 <= seconds < 0.05  # of one call


def test_the_literal_algorithm_is_dropblock(key):
    # 2,048 maps: the two kept fractions, of standard deviation .0023 each, differ by less than .02.
    x = jnp.ones((16, 14, 14, 128))
    y = jax.jit(dropblock_op.literal)(key, x, 0.9)
    kept = float(jnp.mean(y > 0))
    ours, ours_kept = dropblock(key, x, 0.9, dropblock_op.BLOCK, return_kept=True)
    assert abs(kept - float(ours_kept.mean())) < 0.02
    # One scale over the batch, so that the sum stays.
    np.testing.assert_allclose([y.sum(), ours.sum()], x.size, rtol=1e-4)
    # Whole blocks: what a dropped cell of a map is part of is 7 wide somewhere.
    dropped = np.asarray(y == 0)
    assert dropped.any((1, 2)).mean() > 0.2
    assert (dropped.sum((1, 2))[dropped.any((1, 2))] >= 49).all()


def test_tables_of_the_op(monkeypatch, capsys):
    functions = dropblock_op.ours()
    monkeypatch.setattr(dropblock_op, "ours", lambda: {"dropblock": functions["dropblock"]})
    tables = dropblock_op.measure(["2x8x8x4"], ["float32"], repeats=1)
    dropblock_op.show([tables, tables])
    out = capsys.readouterr().out
    for row in ("copy, ms", "dropblock", "Algorithm 1, literally"):
        assert f"| {row} |" in out
    assert "float32, forward + backward" in out and "seconds to compile" in out


@pytest.mark.slow
def test_the_command_prints_them():
    command = [sys.executable, "-m", "benchmarks.dropblock_op", "--maps", "2x8x8x4", "3x7x9x8"]
    command += ["--processes", "1", "--repeats", "1", "--dtype", "float32"]
    done = subprocess.run(command, cwd=processes.ROOT, check=True, capture_output=True, text=True)
    assert "| dropout, keep_prob 0.05 |" in done.stdout


def test_a_step_can_be_timed():
    run, peak = train_step.prepare(tiny.get_config("dropblock"))
    run()
    run()  # with the state of the first
    assert peak > 1e5


def test_ratios_of_detection_are_of_the_same_round():
    times = {"training step": [2.0, 4.0], "matching and losses": [0.2, 0.8]}
    report = detection.report(times)
    assert report[-2] == "| training step | 3000.0 |  |  |  |"
    # 0.1 and 0.2; without torchvision nothing is held against it.
    row = "| matching and losses | 500.0 | training step | 0.150 | 0.125 to 0.175 |"
    assert report[-1] == row


@pytest.mark.slow
def test_detection_can_be_timed():
    cases = detection.ours(
        128,
        1,
        "float32",
        depth=10,
        fpn_channels=8,
        head_convs=1,
        head_channels=8,
    )
    times = timing.rounds(cases, 1)
    assert len(detection.report(times)) == 2 + len(times)
    assert set(times) == set(detection.RATIOS)


def test_samples_can_be_timed():
    cases, peaks = mc_samples.prepare(tiny.get_config(), [2])
    _, found = cases["2"]()
    assert found["std"].shape == (16, 10) and peaks["2"] > 0
