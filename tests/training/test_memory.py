"""Memory that was freed is there for the next step."""

import ctypes
import resource
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import pytest

import processes
from training import memory

# Pages that the system had to clear for a buffer of 64 MB, after one like it was freed.
_CODE = """
import resource
from training import memory
{call}
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    buffer = bytearray(1 << 26)
    buffer[::{page}] = bytes(len(buffer[::{page}]))
    del buffer
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_freed_memory_is_used_again():
    page = resource.getpagesize()

    def faults(call):
        code = _CODE.format(call=call, page=page)
        command = [sys.executable, "-c", code]
        ran = subprocess.run(command, cwd=processes.ROOT, capture_output=True, check=True)
        return int(ran.stdout)

    pages = (1 << 26) // page
    before, after = faults("pass"), faults("memory.keep_freed()")
    if before < pages // 2:
        pytest.skip("this system has pages at hand without it: large ones, or another malloc")
    assert after < pages // 100


@pytest.mark.parametrize(
    ("platform", "backend", "calls"),
    [("linux", "cpu", 3), ("linux", "gpu", 0), ("darwin", "cpu", 0), ("win32", "gpu", 0)],
)
def test_memory_is_kept_where_it_is_glibcs_and_the_arrays_are_in_it(
    monkeypatch, platform, backend, calls
):
    called = []
    library = types.SimpleNamespace(mallopt=lambda *arguments: called.append(arguments))
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    memory.keep_freed()
    assert len(called) == calls
    monkeypatch.setattr(ctypes, "CDLL", lambda name: types.SimpleNamespace())
    memory.keep_freed()  # another C library


def test_the_peak_is_of_arguments_temporaries_and_outputs_that_are_no_arguments():
    x = jax.ShapeDtypeStruct((1024,), jnp.float32)

    def peak(function, **options):
        return memory.peak_bytes(jax.jit(function, **options).lower(x).compile())

    assert peak(lambda x: x + 1) == 2 * 4096
    assert peak(lambda x: x + 1, donate_argnums=0) == 4096
    square = peak(lambda x: jnp.sin(x[:, None] + jnp.ones((1, 1024))) @ x)
    assert 2 * 4096 + 4 * 1024**2 <= square < 2 * 4096 + 12 * 1024**2
