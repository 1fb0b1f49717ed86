"""Whatever is damaged of a checkpoint, it is named and passed over."""

import contextlib
import logging
import math
import os
import pathlib
import shutil

import jax.numpy as jnp
import pytest
from etils import epath

from saved import abstract, open_at, save_scored
from training import files, manifest
from training.config import ConfigError


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scored")
    save_scored(folder)
    return folder


@pytest.fixture
def three(scored, tmp_path):
    """Copies of the checkpoints of steps 1 to 3, of which 2 was evaluated."""
    for step in ("1", "2", "3"):
        shutil.copytree(scored / step, tmp_path / step)
    return tmp_path


STEP = abstract({"step": jnp.int32(0)})


def replace_by_a_folder(path):
    path.unlink()
    path.mkdir()


def replace_by_a_link_to_nothing(path):
    path.unlink()
    path.symlink_to("/nowhere/at/all")


def replace_by_a_pipe(path):
    path.unlink()
    os.mkfifo(path)


def flip(path):
    data = bytearray(path.read_bytes() or b" ")  # markers of Orbax are empty
    data[0] ^= 8
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1] or b"cut")


DAMAGES = (
    replace_by_a_folder,
    replace_by_a_link_to_nothing,
    flip,
    replace_by_a_pipe,
    pathlib.Path.unlink,
    cut,
)


@pytest.mark.parametrize("shift", range(2))
def test_a_damaged_checkpoint_is_passed_over_whichever_file_it_is(three, shift, caplog):
    """Of step 2, the best, while 3 is the newest; then while it is the newest itself."""
    files = sorted(path for path in (three / "2").rglob("*") if path.is_file())
    names = [path.relative_to(three / "2").as_posix() for path in files]
    assert {"manifest.json", "metrics/metrics", "_CHECKPOINT_METADATA"} <= {*names}
    for index, name in enumerate(names):
        damage = DAMAGES[(index + shift) % len(DAMAGES)]
        folder = shutil.copytree(three, three / "copy", ignore=lambda *_: ["copy"])
        damage(folder / "2" / name)
        with open_at(folder, keep=None) as checkpoints, caplog.at_level(logging.WARNING):
            assert checkpoints.best is None and checkpoints.best_value == -math.inf, name
        assert "step 2 is damaged" in caplog.text and str(folder / "2") in caplog.text
        shutil.rmtree(folder / "3")
        with open_at(folder, keep=None) as checkpoints:
            assert int(checkpoints.restore(STEP)["step"]) == 1
        shutil.rmtree(folder)
        caplog.clear()


def test_a_score_that_is_still_json_is_not_believed(three, caplog):
    """The manifest holds what decides: the best was 70."""
    path = three / "2" / "metrics" / "metrics"
    path.write_text(path.read_text().replace("70", "90"))
    with open_at(three, keep=None) as checkpoints:
        assert checkpoints.best is None and not checkpoints.evaluated(2)
    assert "step 2 is damaged" in caplog.text and "metrics/metrics does not have" in caplog.text


@pytest.mark.parametrize(
    "text", ["[]", "null", '"x"', "3", "{}", '{"_METADATA": 3}', "[" * 10_000, "\xff", "NaN"]
)
def test_a_manifest_of_other_json_is_a_fault(three, text):
    (three / "3" / "manifest.json").write_text(text, "latin-1")
    with open_at(three, keep=None) as checkpoints:
        assert int(checkpoints.restore(STEP)["step"]) == 2
        with pytest.raises(ConfigError, match="step 3 is damaged: .*manifest.json"):
            checkpoints.restore(STEP, step=3)
        with pytest.raises(ConfigError, match="there is no checkpoint of step 4; choose another"):
            checkpoints.restore(STEP, step=4)


def test_metrics_that_are_no_numbers_are_a_fault(three):
    manifest.add_metrics(epath.Path(three / "3"), {"top1": "many"})
    with open_at(three, keep=None) as checkpoints:
        assert int(checkpoints.restore(STEP)["step"]) == 2


def test_files_that_were_not_saved_are_a_fault(three):
    (three / "3" / "state" / "more").touch()
    with open_at(three, keep=None) as checkpoints:
        assert int(checkpoints.restore(STEP)["step"]) == 2


def test_an_evaluation_made_up_for_leaves_its_checkpoint_whole_at_any_moment(three, monkeypatch):
    """It is killed before each file that it writes."""
    untouched = (three / "3" / "state" / "_METADATA").stat().st_mtime_ns

    class Killed(BaseException):
        pass

    def write(path, text):
        if not left:
            raise Killed
        left.pop()
        files.write(path, text)

    monkeypatch.setattr(manifest, "write", write)
    for writes in (0, 1, 2):
        left = [None] * writes
        with open_at(three, keep=1) as checkpoints, contextlib.suppress(Killed):
            checkpoints.save(3, {"step": jnp.int32(3)}, {"top1": 80.0})
            assert writes == 2
        with open_at(three, keep=1) as checkpoints:
            assert int(checkpoints.restore(STEP)["step"]) == 3
            assert checkpoints.evaluated(3) == (writes == 2)
    assert checkpoints.best == 3 and checkpoints.best_value == 80.0
    assert (three / "3" / "state" / "_METADATA").stat().st_mtime_ns == untouched


def test_a_checkpoint_is_saved_and_scored_once(three):
    with open_at(three, keep=1) as checkpoints:
        checkpoints.save(2, {"step": jnp.int32(2)}, {"top1": 10.0})
        checkpoints.finish()
        assert checkpoints.best_value == 70.0 and checkpoints.steps == [1, 2, 3]


def test_what_is_no_checkpoint_does_not_count_among_those_kept(three):
    """Of keep=1: neither a damaged one nor an interrupted save is what to fall back on."""
    cut(three / "3" / "manifest.json")
    shutil.copytree(three / "1", three / "4")
    (three / "4" / "manifest.json").unlink()
    with open_at(three, keep=1) as checkpoints:
        assert int(checkpoints.restore(STEP)["step"]) == 2
        checkpoints.save(6, {"step": jnp.int32(6)}, None)
        checkpoints.finish()
        assert checkpoints.steps == [2, 3, 6] and (three / "4").exists()
        checkpoints.save(7, {"step": jnp.int32(7)}, None)
        checkpoints.finish()
        assert checkpoints.steps == [2, 6, 7]  # 2 is the best
    assert {path.name for path in three.iterdir()} == {"2", "6", "7"}
