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


@pytest.mark.parametrize("told", [None, "2"])
def test_small_programs_are_kept_too_where_nothing_else_was_said(monkeypatch, told):
    name = "jax_persistent_cache_min_compile_time_secs"
    before, folder = getattr(jax.config, name), jax.config.jax_compilation_cache_dir
    monkeypatch.delenv(name.upper(), raising=False)
    if told:
        monkeypatch.setenv(name.upper(), told)
    try:
        jax.config.update(name, 2.0)
        keep_compiled(pathlib.Path("runs"))
        assert getattr(jax.config, name) == (2.0 if told else 0.0)
    finally:
        jax.config.update(name, before)
        jax.config.update("jax_compilation_cache_dir", folder)


def test_a_second_run_compiles_nothing(tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    run(tmp_path / "first", "--config.epochs=1")
    kept = sorted((tmp_path / ".cache" / platform.node()).glob("*-cache"))
    assert any("train_step" in path.name for path in kept)
    run(tmp_path / "second", "--config.epochs=1")
    assert sorted((tmp_path / ".cache" / platform.node()).glob("*-cache")) == kept
