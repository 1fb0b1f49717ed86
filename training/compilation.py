"""What JAX compiles, kept: a run that goes on, or another of its kind, need not compile again."""

import pathlib
import platform
from typing import Any

import jax


def keep_compiled(folder: pathlib.Path):
    """Has JAX keep programs under `folder`, and look for them there.

    Where it has been told of another place (JAX_COMPILATION_CACHE_DIR), that stays. Each host has a
    folder of its own, since a CPU's programs are for a processor like it.
    """
    config: Any = jax.config  # whose options a type checker does not know
    if config.jax_compilation_cache_dir is None:
        cache = folder.absolute() / ".cache" / platform.node()
        config.update("jax_compilation_cache_dir", str(cache))
