"""What --multihost says is what jax is told. Runs of several hosts: tests/test_multihost.py."""

import itertools

import jax
import pytest
from jax._src import distributed

from training import multihost
from training.config import ConfigError
from training.multihost import from_process_0, initialize

NAMES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


@pytest.fixture
def told(monkeypatch):
    calls = []
    take = lambda *arguments, **_: calls.append(arguments)  # noqa: E731
    monkeypatch.setattr(jax.distributed, "initialize", take)
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    monkeypatch.setattr(multihost, "Peers", lambda: None)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    return calls


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("false", []),
        ("true", [(None, None, None)]),
        ("host:1234,4,3", [("host:1234", 4, 3)]),
        ("[::1]:1234,4,0", [("[::1]:1234", 4, 0)]),
    ],
)
def test_hosts_are_joined_as_the_flag_says(told, how, expected):
    initialize(how)
    assert told == expected


def test_hosts_are_joined_as_the_environment_says(told, monkeypatch):
    for name, value in zip(NAMES, ("host:1234", "4", "3"), strict=True):
        assert told == []
        monkeypatch.setenv(name, value)
    initialize("true")
    assert told == [("host:1234", 4, 3)]
    monkeypatch.setenv("JAX_PROCESS_ID", "4")
    with pytest.raises(ConfigError, match="INDEX from 0 to PROCESSES - 1, got 'host:1234,4,4'"):
        initialize("true")


@pytest.mark.parametrize(
    "how",
    [
        "host:1234",
        "host:1234,4",
        "host:1234,4,x",
        "host:1,2,3,4",
        "host,4,3",
        "host:0,4,3",
        "host:1234,4,4",
        "host:1234,4,-1",
    ],
)
def test_what_cannot_be_read_is_named(told, how):
    with pytest.raises(ConfigError, match=f"must be COORDINATOR:PORT,PROCESSES,INDEX.*got '{how}'"):
        initialize(how)
    assert told == []


@pytest.mark.parametrize("kind", [ValueError, RuntimeError])
def test_that_there_is_no_cluster_is_said(told, monkeypatch, kind):
    def fail(*_, **__):
        raise kind("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    with pytest.raises(ConfigError, match="finds no pod or cluster.*coordinator_address"):
        initialize("true")
    with pytest.raises(ConfigError, match="cannot join host:1234.*coordinator_address"):
        initialize("host:1234,4,3")


class Service:
    """What the processes tell each other through JAX."""

    def __init__(self):
        self.told = {}

    def key_value_set(self, key, value):
        self.told[key] = value

    def blocking_key_value_get(self, key, _):
        return self.told[key]


@pytest.mark.parametrize("value", [None, False, True, "text \u00e9", [[1, None], {"a": 0.1 + 0.2}]])
def test_any_value_of_process_0_reaches_all(monkeypatch, value):
    service = Service()
    monkeypatch.setattr(distributed.global_state, "client", service)
    assert from_process_0(lambda: value) is value and not service.told
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for process, mine in enumerate((value, "another")):
        monkeypatch.setattr(jax, "process_index", lambda index=process: index)
        monkeypatch.setattr(multihost, "_questions", itertools.count(7))  # the same for all
        assert from_process_0(lambda mine=mine: mine) == value
