"""Eight CPU devices, fast compiles, and strictness, for every test."""

import importlib.metadata
import os
import tempfile

# What one test has compiled, other tests, workers and subprocesses need not compile again.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _cache = tempfile.TemporaryDirectory(prefix="dropblock-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# XLA's older code generator for CPUs takes half the time; jaxlib 0.12 has it no more.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false"
    )

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
# XLA spends minutes on a ResNet otherwise. Tests that need the optimiser run in a subprocess.
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def key():
    return jax.random.key(0)
