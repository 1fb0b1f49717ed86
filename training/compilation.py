"""What JAX compiles, kept: a run that goes on, or another of its kind, need not compile again."""

import pathlib
import platform
from typing import Any

import jax


def keep_compiled(folder: pathlib.Path):
    """Has JAX keep programs under `folder`, and look for them there.

    Where it has been told of another place (JAX_COMPILATION_CACHE_DIR), that stays.
    """
    config: Any = jax.config  # whose options a type checker does not know
    if config.jax_compilation_cache_dir is None:
        config.update("jax_compilation_cache_dir", cache_under(folder))


def cache_under(folder: pathlib.Path) -> str:
    """Where programs are kept; of each host its own, as a CPU's are for a processor like it."""
    return str(folder.absolute() / ".cache" / platform.node())
