"""A checkpoint is whole or it is not used."""

import logging
import math
import sys
import time
import types
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saved import ABSTRACT, abstract, open_at, save_scored, state
from training import checkpoints as checkpoints_lib
from training import manifest
from training.config import ConfigError
from training.files import WriteError


@pytest.fixture
def folder(tmp_path):
    """Checkpoints of steps 10, 20 and 30."""
    with open_at(tmp_path / "checkpoints", keep=5) as checkpoints:
        for step in (10, 20, 30):
            checkpoints.save(step, state(step), None)
    return tmp_path / "checkpoints"


def big_file(folder):
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json"]
    return max(files, key=lambda p: p.stat().st_size)


def flip_a_byte(folder):
    path = big_file(folder)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut_short(folder):
    path = big_file(folder)
    path.write_bytes(path.read_bytes()[:-10])


def lose_a_file(folder):
    big_file(folder).unlink()


def test_the_latest_is_restored(folder, caplog):
    with open_at(folder) as checkpoints:
        assert checkpoints.steps == [10, 20, 30]
        restored = checkpoints.restore(ABSTRACT)
        jax.tree.map(np.testing.assert_array_equal, restored, state(30))
        assert int(checkpoints.restore(ABSTRACT, step=10)["step"]) == 10
    assert not caplog.records


def test_there_may_be_none(tmp_path):
    with open_at(tmp_path / "none") as checkpoints:
        assert checkpoints.restore(ABSTRACT) is None and checkpoints.best is None


@pytest.mark.parametrize("damage", [flip_a_byte, cut_short, lose_a_file])
def test_the_one_before_a_damaged_one_is_used_and_said(folder, damage, caplog):
    damage(folder / "30")
    with open_at(folder) as checkpoints, caplog.at_level(logging.WARNING):
        assert int(checkpoints.restore(ABSTRACT)["step"]) == 20
        assert "step 30 is damaged" in caplog.text
        assert "using the checkpoint of step 20" in caplog.text
        with pytest.raises(ConfigError, match="step 30 is damaged"):
            checkpoints.restore(ABSTRACT, step=30)
        checkpoints.save(30, state(31), None)  # the run comes by again
        checkpoints.finish()
        assert int(checkpoints.restore(ABSTRACT)["step"]) == 31


def test_a_run_that_went_back_saves_before_the_damaged_one(folder):
    flip_a_byte(folder / "30")
    with open_at(folder, keep=5) as checkpoints:
        checkpoints.save(25, state(25), None)
        checkpoints.finish()
        assert checkpoints.steps == [10, 20, 25, 30]
        assert int(checkpoints.restore(ABSTRACT)["step"]) == 25


def test_none_whole_is_an_error_not_a_new_run(folder):
    for step in (10, 20, 30):
        flip_a_byte(folder / str(step))
    with (
        open_at(folder) as checkpoints,
        pytest.raises(ConfigError, match="step 10 is damaged.*start anew"),
    ):
        checkpoints.restore(ABSTRACT)


def test_an_interrupted_save_counts_as_not_there(folder, caplog):
    (folder / "30" / "manifest.json").unlink()
    with open_at(folder) as checkpoints, caplog.at_level(logging.WARNING):
        assert checkpoints.steps == [10, 20]
        assert int(checkpoints.restore(ABSTRACT, step=10)["step"]) == 10
        assert int(checkpoints.restore(ABSTRACT)["step"]) == 20
    assert "saves of steps [30] were interrupted" in caplog.text


def test_a_broken_manifest_is_a_fault(folder, caplog):
    (folder / "30" / "manifest.json").write_text("{")
    with open_at(folder) as checkpoints:
        assert int(checkpoints.restore(ABSTRACT)["step"]) == 20


def test_a_save_is_complete_without_another_to_follow(tmp_path):
    with open_at(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, state(1), None)
        manifest = tmp_path / "1" / "manifest.json"
        deadline = time.monotonic() + 60
        while not manifest.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert manifest.exists()


def test_a_relative_folder_will_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open_at("relative") as checkpoints:
        checkpoints.save(1, state(1), None)
    assert (tmp_path / "relative" / "1" / "manifest.json").exists()


def test_the_latest_and_the_best_are_kept(tmp_path):
    with open_at(tmp_path, keep=1) as checkpoints:
        for step, top1 in ((1, 50.0), (2, 70.0), (3, 68.0), (4, None), (5, 65.0), (6, None)):
            checkpoints.save(step, state(step), None if top1 is None else {"top1": top1})
        checkpoints.finish()
        assert checkpoints.steps == [2, 5, 6] and checkpoints.best == 2


def test_the_state_may_be_donated_at_once(tmp_path):
    bump = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    big = {"step": jnp.int32(0), "params": {"w": jnp.zeros((2000, 2000))}}
    shapes = abstract(big)
    with open_at(tmp_path, keep=9) as checkpoints:
        for step in range(1, 4):
            big = bump(big)
            checkpoints.save(step, big, None)
        checkpoints.finish()
        for step in range(1, 4):
            restored = checkpoints.restore(shapes, step=step)
            assert (np.asarray(restored["params"]["w"]) == step).all()


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scored")
    save_scored(folder)
    with open_at(folder, keep=None) as checkpoints:
        yield checkpoints


def test_a_checkpoint_has_names(scored, tmp_path):
    names = ("latest", "best", "1", "4")
    assert [scored.step_of(name) for name in names] == [None, 2, 1, 4]
    for name in ("5", "-1", "last"):
        with pytest.raises(ConfigError, match=f"no checkpoint '{name}' in .*are 1, 2, 3, 4"):
            scored.step_of(name)
    with open_at(tmp_path) as none:
        with pytest.raises(ConfigError, match="there is no checkpoint in"):
            none.step_of("latest")
        none.save(1, {"step": jnp.int32(1)}, None)
        none.finish()
        assert none.step_of("latest") is None
        with pytest.raises(ConfigError, match="no checkpoint in .* has been evaluated"):
            none.step_of("best")


def test_scores_are_kept_with_their_steps(scored):
    assert (scored.best, scored.best_value) == (2, 70.0)
    assert [scored.evaluated(step) for step in range(1, 6)] == [False, True, False, True, False]


def test_the_best_value_is_not_the_latest(tmp_path):
    with open_at(tmp_path, keep=5) as checkpoints:
        values = [checkpoints.best_value]
        for step, top1 in ((1, 50.0), (2, 40.0), (3, 60.0), (4, 60.0)):
            checkpoints.save(step, {"step": jnp.int32(step)}, {"top1": top1})
            checkpoints.finish()
            values.append(checkpoints.best_value)
        assert values == [-math.inf, 50, 50, 60, 60] and checkpoints.best == 4


def test_to_read_creates_and_deletes_nothing(tmp_path):
    with open_at(tmp_path / "none", keep=None) as checkpoints:
        assert checkpoints.steps == []
    assert not (tmp_path / "none").exists()


def as_process(monkeypatch, index, told=None):
    """This module as that of one of two processes, where process 0 has `told` in turn."""
    two = types.SimpleNamespace(process_index=lambda: index, process_count=lambda: 2)
    monkeypatch.setattr(checkpoints_lib, "jax", two)
    told = told or []
    asked = types.SimpleNamespace(from_process_0=lambda make: told.pop(0) if index else make())
    monkeypatch.setattr(checkpoints_lib, "multihost", asked)


def test_process_0_judges_for_all(folder, monkeypatch):
    found = [[[10, None], [20, 1.0], [30, None]], [], []]
    flip_a_byte(folder / "20")
    as_process(monkeypatch, 1, [found, None, "the checkpoint of step 30 is damaged"])
    with open_at(folder) as checkpoints:
        assert checkpoints.evaluated(20)
        assert int(checkpoints.restore(ABSTRACT, step=20)["step"]) == 20
        with pytest.raises(ConfigError, match="step 30 is damaged; choose another"):
            checkpoints.restore(ABSTRACT, step=30)
    as_process(monkeypatch, 0)
    with open_at(folder) as checkpoints:
        assert int(checkpoints.restore(ABSTRACT, step=30)["step"]) == 30
        with pytest.raises(ConfigError, match="step 20 is damaged.*sha256"):
            checkpoints.restore(ABSTRACT, step=20)


def test_process_0_alone_writes_manifests_and_deletes(tmp_path, monkeypatch):
    as_process(monkeypatch, 1, [[[], [], []]])
    with open_at(tmp_path, keep=1) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, {"step": jnp.int32(step)}, None)
        checkpoints.finish()
        assert checkpoints.steps == [2, 3]
    assert (tmp_path / "1").exists() and not list(tmp_path.rglob("manifest.json"))


def test_what_a_killed_save_left_goes_when_a_run_writes_there(folder):
    left = folder / "40.orbax-checkpoint-tmp"
    left.mkdir()
    with open_at(folder, keep=None):
        pass
    assert left.exists()
    with open_at(folder, keep=1) as checkpoints:
        checkpoints.save(50, state(50), None)
    assert not left.exists()


def test_a_save_that_fails_is_no_secret(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    state = {"step": jnp.int32(0)}
    with open_at(tmp_path) as checkpoints:
        checkpoints.save(1, state, None)
    monkeypatch.setattr(manifest, "seal", fail)
    checkpoints = open_at(tmp_path)
    checkpoints.save(2, state, None)
    message = f"{tmp_path / '2'} cannot be written: No space left"
    with pytest.raises(WriteError, match=message):
        checkpoints.finish()
    checkpoints.save(3, state, None)
    with pytest.raises(WriteError, match="No space left"):
        checkpoints.save(4, state, None)
    checkpoints.save(5, state, None)
    with pytest.raises(WriteError, match="No space left") as failed, checkpoints:
        pass
    assert failed.value.__notes__ == ["the same command goes on from the checkpoint of step 1"]
    with pytest.raises(WriteError) as failed, open_at(tmp_path / "other"):
        raise WriteError("metrics.jsonl cannot be written")
    assert failed.value.__notes__ == [
        "no checkpoint was saved yet, so that the same command begins anew"
    ]


def test_another_model_is_named(folder):
    other = abstract({"step": jnp.int32(0), "params": {"v": jnp.zeros((64, 64))}})
    with open_at(folder) as checkpoints, pytest.raises(ConfigError, match="another model"):
        checkpoints.restore(other)


def test_other_shapes_are_named(folder):
    other = abstract({"step": jnp.int32(0), "params": {"w": jnp.zeros((3, 3))}})
    with open_at(folder) as checkpoints, pytest.raises(ConfigError, match="another model"):
        checkpoints.restore(other)


def test_a_bucket_whose_package_is_not_there_is_said(monkeypatch):
    def fail(_):
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr(type(checkpoints_lib.epath.Path("gs://bucket/run")), "exists", fail)
    with pytest.raises(ConfigError, match="gs://bucket/run cannot be reached: .* gcsfs"):
        open_at("gs://bucket/run")


def test_the_other_writes_of_a_failed_save_are_hushed_and_nothing_else(monkeypatch):
    shown = []
    monkeypatch.setattr(sys, "unraisablehook", shown.append)
    monkeypatch.setattr(warnings, "filterwarnings", lambda *_: None)
    checkpoints_lib._hush_late_writes.__wrapped__()
    errors = [RuntimeError("Event loop is closed"), RuntimeError("another"), ValueError("x")]
    for error in errors:
        unraisable: Any = types.SimpleNamespace(exc_value=error)
        sys.unraisablehook(unraisable)
    assert [found.exc_value for found in shown] == errors[1:]
