"""The memory of this process, and of a compiled program."""

import ctypes
import sys

import jax

# Of <malloc.h>.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed():
    """On a CPU, keeps freed memory for the next step instead of giving it back to the system.

    XLA allocates a step's buffers anew each time. The C library maps large ones, so that the system
    has to clear every page of them, which costs a small network a good part of its step. Does
    nothing where the C library is not glibc, or where the arrays are not in this memory.
    """
    if sys.platform != "linux" or jax.default_backend() != "cpu":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)  # never
        mallopt(_M_TOP_PAD, 1 << 26)


def peak_bytes(compiled: jax.stages.Compiled) -> int:
    """XLA's plan of what a program holds on each device: arguments, temporaries, and outputs that
    are no arguments."""
    memory = compiled.memory_analysis()
    assert memory is not None
    peak = memory.argument_size_in_bytes + memory.output_size_in_bytes
    return peak + memory.temp_size_in_bytes - memory.alias_size_in_bytes
