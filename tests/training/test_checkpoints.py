"""A checkpoint is whole or it is not used."""

import logging
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from training.checkpoints import Checkpoints
from training.config import ConfigError


def state(step):
    return {
        "step": jnp.int32(step),
        "params": {"w": jax.random.normal(jax.random.key(step), (64, 64))},
    }


def abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


ABSTRACT = abstract(state(0))


def open_at(folder, keep=2):
    return Checkpoints(folder, keep=keep, best_metric="top1")


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


def test_the_latest_is_restored(folder):
    with open_at(folder) as checkpoints:
        assert checkpoints.steps == [10, 20, 30]
        restored = checkpoints.restore(ABSTRACT)
        jax.tree.map(np.testing.assert_array_equal, restored, state(30))
        assert int(checkpoints.restore(ABSTRACT, step=10)["step"]) == 10


def test_there_may_be_none(tmp_path):
    with open_at(tmp_path / "none") as checkpoints:
        assert checkpoints.restore(ABSTRACT) is None and checkpoints.best is None


@pytest.mark.parametrize("damage", [flip_a_byte, cut_short, lose_a_file])
def test_the_one_before_a_damaged_one_is_used_and_said(folder, damage, caplog):
    damage(folder / "30")
    with open_at(folder) as checkpoints, caplog.at_level(logging.WARNING):
        assert int(checkpoints.restore(ABSTRACT)["step"]) == 20
        assert "step 30 is damaged" in caplog.text and "step 20" in caplog.text
        with pytest.raises(ConfigError, match="step 30 is damaged"):
            checkpoints.restore(ABSTRACT, step=30)
        checkpoints.save(30, state(31), None)  # the run comes by again
        checkpoints.finish()
        assert int(checkpoints.restore(ABSTRACT)["step"]) == 31


def test_none_whole_is_an_error_not_a_new_run(folder):
    for step in (10, 20, 30):
        flip_a_byte(folder / str(step))
    with (
        open_at(folder) as checkpoints,
        pytest.raises(ConfigError, match="step 10 is damaged.*start anew"),
    ):
        checkpoints.restore(ABSTRACT)


def test_an_interrupted_save_counts_as_not_there(folder):
    (folder / "30" / "manifest.json").unlink()
    with open_at(folder) as checkpoints:
        assert checkpoints.steps == [10, 20]
        assert int(checkpoints.restore(ABSTRACT)["step"]) == 20


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
        for step, top1 in ((1, 50.0), (2, 70.0), (3, 60.0), (4, None), (5, 65.0), (6, None)):
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


def test_another_model_is_named(folder):
    other = abstract({"step": jnp.int32(0), "params": {"v": jnp.zeros((64, 64))}})
    with open_at(folder) as checkpoints, pytest.raises(ConfigError, match="another model"):
        checkpoints.restore(other)


def test_other_shapes_are_named(folder):
    other = abstract({"step": jnp.int32(0), "params": {"w": jnp.zeros((3, 3))}})
    with open_at(folder) as checkpoints, pytest.raises(ConfigError, match="another model"):
        checkpoints.restore(other)
