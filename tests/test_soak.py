"""Short forms of `make soak`."""

import random
import signal

import pytest

from processes import finish, once, run
from soak import disks, kills

JOB = kills.TINY[0]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The whole run of tests/test_train.py."""
    return once(tmp_path_factory, "undisturbed", run)[0]


def test_kills_at_chosen_places_change_nothing(undisturbed, tmp_path):
    draw = random.Random(0)
    for place, call in (("before a manifest", 2), ("in an evaluation", 1)):
        assert kills.signal_at(JOB, tmp_path, place, signal.SIGKILL, draw, call)
    assert "going on from step" in finish(JOB.start(tmp_path))
    assert kills.differences(JOB, tmp_path, undisturbed) == []


def test_a_full_disk_ends_a_run_in_a_sentence_and_with_room_it_goes_on(undisturbed, tmp_path):
    if not disks.possible(tmp_path):
        pytest.skip("this user may not mount")
    told = disks.soak(undisturbed, tmp_path, [0.8], read_only=False)
    assert told == [("filled in the middle", None)]
