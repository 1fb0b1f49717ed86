"""Memory that was freed is there for the next step."""

import resource
import subprocess
import sys

import pytest

import processes

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
