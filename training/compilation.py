"""What JAX compiles, kept: a run that goes on, or another of its kind, need not compile again."""

import os
import pathlib
import platform
from typing import Any

import jax


def keep_compiled(folder: pathlib.Path):
    """Has JAX keep programs under `folder`, and look for them there.

    Where it has been told of another place (JAX_COMPILATION_CACHE_DIR), that stays; so does how long
    a program has to take to be kept (JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS). By itself JAX keeps
    none of less than a second, and a start has many of those.
    """
    config: Any = jax.config  # whose options a type checker does not know
    if config.jax_compilation_cache_dir is None:
        config.update("jax_compilation_cache_dir", cache_under(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def cache_under(folder: pathlib.Path) -> str:
    """Where programs are kept; of each host its own, as a CPU's are for a processor like it."""
    return str(folder.absolute() / ".cache" / platform.node())
