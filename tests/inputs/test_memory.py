"""Memory that was freed is there for the next image, or step."""

import ctypes
import resource
import subprocess
import sys
import types

import pytest

import processes
from inputs import memory

# Pages that the system had to clear for a buffer of 64 MB, after one like it was freed.
_CODE = """
import resource
from inputs import memory
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


@pytest.mark.parametrize(("platform", "calls"), [("linux", 3), ("darwin", 0), ("win32", 0)])
def test_memory_is_kept_where_it_is_glibcs(monkeypatch, platform, calls):
    called = []
    library = types.SimpleNamespace(mallopt=lambda *arguments: called.append(arguments))
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    memory.keep_freed()
    assert len(called) == calls
    monkeypatch.setattr(ctypes, "CDLL", lambda name: types.SimpleNamespace())
    memory.keep_freed()  # another C library
