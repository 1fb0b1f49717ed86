"""Where the time goes: data, devices and host, told apart, in the loop too."""

import re
import time

import jax
import pytest

import tiny
import train
from processes import records
from tasks import make_task
from training.logging import Progress
from training.plan import make_plan
from training.timing import Pace, Timing


@pytest.fixture
def clock(monkeypatch):
    """`clock(seconds)` lets time pass."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def test_means_are_of_the_steps_since_the_start(clock):
    timing = Timing(batch_size=8)
    clock(50.0)
    timing.start(10)
    for _ in range(4):
        with timing.waiting("data"):
            clock(0.25)
        with timing.waiting("devices"):
            clock(0.5)
        clock(0.125)
    with timing.stopped():
        clock(9.0)
    assert timing.record(14) == pytest.approx(
        {
            "time/images_per_second": 4 * 8 / 3.5,
            "time/step_ms": 875.0,
            "time/input_wait_ms": 250.0,
            "time/host_ms": 125.0,
        }
    )
    timing.start(14)
    clock(1.0)
    assert timing.record(15)["time/step_ms"] == timing.record(15)["time/host_ms"] == 1000.0


@pytest.mark.parametrize(
    ("data", "devices", "host", "verdict"),
    [
        (0.3, 0.1, 0.05, r"data is the limit: .* more data\.num_threads"),
        (0.1, 0.3, 0.05, "compute is the limit: .* host's own$"),
        (0.05, 0.1, 0.3, "the host is the limit: .* a larger batch_size"),
    ],
)
def test_the_largest_is_the_limit(clock, data, devices, host, verdict):
    timing = Timing(batch_size=8)
    assert "no step" in timing.verdict()
    for step in (1, 2):
        timing.start(step)
        with timing.waiting("data"):
            clock(data)
        with timing.waiting("devices"):
            clock(devices)
        clock(host)
        timing.record(step + 1)
    text = timing.verdict()
    figures = (
        rf"of {1e3 * (data + devices + host):.1f} ms a step, {1e3 * devices:.1f} ms waited for the "
        rf"devices, {1e3 * data:.1f} ms for data, and {1e3 * host:.1f} ms were the host's own"
    )
    assert re.match(verdict, text) and figures in text and "\n" not in text


def test_compiling_is_in_no_rate_and_evaluating_in_the_rest_alone(clock):
    """8 images a step of 2 s; after 5 an evaluation of 10 s, whose compile of 60 s is once."""
    clock(50.0)
    pace = Pace(20, 120, batch_size=8)
    with pace.stopped():
        clock(40.0)
    assert pace.images_per_second(20) is None is pace.seconds_left(20)
    for step in range(21, 26):
        clock(2.0)
        assert pace.images_per_second(step) == pytest.approx(4.0)
        assert pace.seconds_left(step) == pytest.approx(2.0 * (120 - step))
    with pace.stopped(again=True):
        clock(3.0)
        with pace.stopped():
            clock(60.0)
        clock(7.0)
    assert pace.images_per_second(25) == pytest.approx(4.0)
    assert pace.seconds_left(25) == pytest.approx(95 * 4.0)
    clock(20.0)
    assert pace.images_per_second(35) == pytest.approx(4.0)
    assert pace.seconds_left(120) == 0


def test_a_run_without_a_terminal_says_early_and_then_rarely_how_far_it_is(clock, capsys):
    with Progress(1000, batch_size=16) as progress:
        progress.begin(100)
        with progress.compiling("the training step"):
            clock(60.0)
        for step in range(101, 201):
            clock(4.0)
            progress.step(step)
        progress.log({"step": 200, "epoch": 2.0, "time/images_per_second": 4.0})
        with progress.doing("evaluating", again=True):
            for done in range(10, 201, 10):
                clock(1.0)
                progress.evaluating(done, 200)
        for step in range(201, 251):  # a record has been shown: the next will be
            clock(4.0)
            progress.step(step)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["compiling the training step", "compiled the training step in 60.0 s"]
    assert lines[2] == "step 103/1000  4 images/s  ETA 0:59:48"
    assert [line.split()[1] for line in lines[3:-2]] == [
        "108/1000",
        "118/1000",
        "138/1000",
        "178/1000",
    ]
    assert lines[-2:] == [
        "step 200/1000  epoch 2.00  4 images/s  ETA 0:53:20",
        "evaluating 100/200",
    ]


@pytest.fixture(scope="module")
def plan():
    return make_plan(tiny.get_config(), make_task, jax.devices()[:1])


@pytest.mark.parametrize("slow", ["data", "step"])
def test_a_slow_input_and_a_slow_step_are_told_apart(plan, slow, tmp_path, monkeypatch, capsys):
    seconds = 0.2
    if slow == "data":
        batches = plan.task.train_batches

        def slow_batches(**options):
            for batch in batches(**options):
                time.sleep(seconds)
                yield batch

        monkeypatch.setattr(plan.task, "train_batches", slow_batches)
    else:
        read = train.telemetry.read

        def slow_read(*arguments):  # as if the devices took longer
            time.sleep(seconds)
            return read(*arguments)

        monkeypatch.setattr(train.telemetry, "read", slow_read)
    monkeypatch.setattr(train, "make_plan", lambda *_: plan)
    config = tiny.get_config()
    # The first batch of a run is read before the step is compiled: that wait is not in the figures.
    config.log_every_steps = 6
    config.checkpoint_every_steps = 100
    assert train.train(config, tmp_path) == 0
    for line in records(tmp_path):
        step, waited, host = (line[f"time/{name}_ms"] for name in ("step", "input_wait", "host"))
        assert step > 150 and host < 0.5 * step
        assert waited > 0.5 * step if slow == "data" else waited < 0.5 * step
    out = capsys.readouterr().out
    assert re.search(f"{'data' if slow == 'data' else 'compute'} is the limit: of ", out)
    assert re.search(r"compiling the training step\ncompiled the training step in \d+\.\d s\n", out)
