"""A first signal is noted, a second acts, and several processes stop together."""

import os
import signal

import pytest

from training import multihost
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


@pytest.fixture
def asked(monkeypatch):
    """Of jax, which says yes to the third question."""
    questions = []
    monkeypatch.setattr(multihost, "catch_sigterm", lambda: questions.append(0))
    told = lambda number: questions.append(number) or number == 3  # noqa: E731
    monkeypatch.setattr(multihost, "told_to_stop", told)
    return questions


def test_several_processes_are_told_by_jax_at_the_same_question(usual, asked):
    with StopSignals(2) as stop:
        assert [stop.received() for _ in range(5)] == [0, 0, *[signal.SIGTERM] * 3]
        send(signal.SIGTERM)  # not caught here
    assert asked == [0, 1, 2, 3] and usual == [signal.SIGTERM]


def test_an_interrupt_of_one_of_several_is_a_sigterm_for_all(usual, asked):
    with StopSignals(2) as stop:
        send(signal.SIGINT)
        assert usual == [signal.SIGTERM] and stop.received() == 0  # which jax would hear of
        send(signal.SIGINT)
        assert usual == [signal.SIGTERM, signal.SIGINT]


def test_one_process_asks_nobody(asked):
    with StopSignals(1) as stop:
        assert stop.received() == 0
    assert asked == []
