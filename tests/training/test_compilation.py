"""Where compiled programs are kept, and that a second run finds them."""

import pathlib
import platform

import jax
import pytest

from processes import run
from training.compilation import keep_compiled


@pytest.mark.parametrize("told", [None, "elsewhere"])
def test_the_folder_is_the_hosts_own_or_the_one_that_was_told(told):
    before = jax.config.jax_compilation_cache_dir
    try:
        jax.config.update("jax_compilation_cache_dir", told)
        keep_compiled(pathlib.Path("runs"))
        own = str(pathlib.Path("runs").absolute() / ".cache" / platform.node())
        assert jax.config.jax_compilation_cache_dir == (told or own)
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_a_second_run_compiles_nothing(tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    run(tmp_path / "first", "--config.epochs=1")
    kept = sorted((tmp_path / ".cache" / platform.node()).glob("*-cache"))
    assert any("train_step" in path.name for path in kept)
    run(tmp_path / "second", "--config.epochs=1")
    assert sorted((tmp_path / ".cache" / platform.node()).glob("*-cache")) == kept
