"""The memory of this process."""

import ctypes
import sys

# Of <malloc.h>.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed():
    """Keeps freed memory for the next image or step instead of giving it back to the system.

    The C library maps large arrays, so that the system has to clear every page of them anew: of
    each decoded image, and on a CPU of the buffers of a step, which costs reading, and a small
    network's step, a good part of their time. Does nothing where the C library is not glibc.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)  # never
        mallopt(_M_TOP_PAD, 1 << 26)
