"""A first signal is noted, a second acts, and several processes stop together."""

import os
import signal

import pytest
from jax.experimental import multihost_utils

from training.stopping import StopSignals


@pytest.fixture(autouse=True)
def usual(monkeypatch):
    """What a signal does outside: it is told to a list."""
    seen = []
    before = {
        number: signal.signal(number, lambda number, _: seen.append(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    yield seen
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_is_noted_and_the_second_acts_as_usual(usual, number):
    with StopSignals() as stop:
        assert stop.received() == 0
        send(number)
        assert stop.received() == number and usual == []
        send(number)
        assert usual == [number]
    send(number)
    assert usual == [number, number]


def test_without_a_signal_all_is_as_it_was(usual):
    with StopSignals() as stop:
        assert stop.received() == 0
    for number in (signal.SIGTERM, signal.SIGINT):
        send(number)
    assert usual == [signal.SIGTERM, signal.SIGINT]


def test_several_processes_are_told_by_jax_at_the_same_question(usual, monkeypatch):
    asked = []

    def reached(number):
        asked.append(number)
        return number == 3

    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", reached)
    with StopSignals(2) as stop:
        assert [stop.received() for _ in range(5)] == [0, 0, *[signal.SIGTERM] * 3]
        send(signal.SIGTERM)  # not caught here
    assert asked == [1, 2, 3] and usual == [signal.SIGTERM]


def test_one_process_asks_nobody(monkeypatch):
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", lambda _: True)
    with StopSignals(1) as stop:
        assert stop.received() == 0
