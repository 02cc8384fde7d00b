"""Keeps freed memory for the next step: one switch of the C library, worth a twentieth of a step on a CPU."""

import ctypes
import sys

__all__ = ["keep_freed_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # numbers of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Tell glibc to hold on to large blocks instead of giving each back; True where that worked.

    Every step allocates the same maps of tens of MB.  By default glibc returns such blocks to the system when they are
    freed, and the system hands them out again page by page, cleared.  Other C libraries are left alone.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, 2**30)) and bool(mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
