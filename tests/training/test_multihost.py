"""What --multihost says is what jax is told. Runs of two hosts: tests/test_multihost.py."""

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from training.config import ConfigError
from training.multihost import as_process_0_sees_it, from_process_0, initialize


@pytest.fixture
def told(monkeypatch):
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *arguments: calls.append(arguments))
    return calls


@pytest.mark.parametrize(
    ("how", "expected"),
    [("false", []), ("true", [()]), ("host:1234,4,3", [("host:1234", 4, 3)])],
)
def test_hosts_are_joined_as_the_flag_says(told, how, expected):
    initialize(how)
    assert told == expected


@pytest.mark.parametrize("how", ["host:1234", "host:1234,4", "host:1234,4,x", "host:1,2,3,4"])
def test_what_cannot_be_read_is_named(told, how):
    with pytest.raises(ConfigError, match=f"must be COORDINATOR:PORT,PROCESSES,INDEX, got '{how}'"):
        initialize(how)
    assert told == []


def test_that_there_is_no_cluster_is_said(monkeypatch):
    def fail():
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    with pytest.raises(ConfigError, match="finds no pod or cluster.*coordinator_address"):
        initialize("true")


@pytest.mark.parametrize("answer", [False, True])
def test_process_0_is_asked_where_there_are_others(monkeypatch, answer):
    assert as_process_0_sees_it(answer) is answer
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    sent = []
    # What jax gives back is an array.
    told = lambda own: sent.append(own) or np.array(answer)  # noqa: E731
    monkeypatch.setattr(multihost_utils, "broadcast_one_to_all", told)
    assert as_process_0_sees_it(not answer) is answer and sent == [not answer]


@pytest.mark.parametrize("value", [None, True, "text \u00e9", [[1, None], {"a": 0.1 + 0.2}]])
def test_any_value_of_process_0_reaches_all(monkeypatch, value):
    sent = []

    def broadcast(mine):
        if process == 0:
            sent.append(mine)
            return mine
        taken = sent[len(taken_so_far)]
        taken_so_far.append(taken)
        assert np.shape(mine) == np.shape(taken)
        return taken

    taken_so_far = []
    monkeypatch.setattr(multihost_utils, "broadcast_one_to_all", broadcast)
    assert from_process_0(lambda: value) is value and not sent
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for process, mine in enumerate((value, "another")):
        monkeypatch.setattr(jax, "process_index", lambda index=process: index)
        assert from_process_0(lambda mine=mine: mine) == value
