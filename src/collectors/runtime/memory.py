"""Has the allocators of the process return what is freed, so that its size is what it uses."""

from __future__ import annotations

import ctypes
import sys

import pyarrow as pa

__all__ = ["give_memory_back", "has_much_free", "trim_heap"]

_MOST_FREE = 40 * 2**20

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8


def trim_heap() -> None:
    """Return the free pages between the used ones, too. Called now and then; takes about a millisecond.

    Without, the process grows by some MiB an hour, whenever there was more in flight than before: glibc returns by itself
    only what is free at the heap's end (malloc_trim(3)).
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def has_much_free() -> bool:
    """Return whether there are so many free pages between the used ones that they are to be returned before it is time.

    Chunks come and go by the hundred a second, and no two are of one size: the heap falls to pieces within seconds. To
    return its pages each time would cost more than it saves.
    """
    told = getattr(ctypes.CDLL(None), "mallinfo2", None) if sys.platform == "linux" else None
    if told is None:  # glibc before 2.33, another libc
        return False
    told.restype = _Mallinfo
    return int(told().fordblks) > _MOST_FREE


class _Mallinfo(ctypes.Structure):
    """`struct mallinfo2` of mallinfo(3); `fordblks` is what is free in the heap, in bytes."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    )


def give_memory_back() -> None:
    """Have freed memory return to the system at once, for the rest of the process's life.

    By default both allocators keep much of it for later: glibc adapts its thresholds to the largest block that was
    freed (mallopt(3)), and has a heap for each thread; Arrow's mimalloc holds on to its pages. With 1,000 sources that was
    100 MiB. Blocks of a few MiB stay in the heap, though: to map them anew each time costs a tenth of all CPU time in page faults.
    """
    pa.set_memory_pool(pa.system_memory_pool())
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:  # another libc has none
            mallopt(_M_MMAP_THRESHOLD, 5 * 2**20)  # a chunk of the default size, with the line that ends it
            mallopt(_M_TRIM_THRESHOLD, 8 * 2**20)
            mallopt(_M_ARENA_MAX, 1)
