"""Functions of ours in compiled code, where they were built for this machine."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

__all__ = ["functions"]


def functions(library: Path, *names: str, with_lock: bool = False) -> list[Any] | None:
    """Return functions of a library; None where it is not installed, or switched off by `COLLECTORS_NATIVE=0`.

    `with_lock`: they work on Python's objects, and hold the interpreter's lock.
    """
    if os.environ.get("COLLECTORS_NATIVE") == "0":
        return None
    try:
        opened = (ctypes.PyDLL if with_lock else ctypes.CDLL)(str(library))
        return [getattr(opened, name) for name in names]
    except (OSError, AttributeError):
        return None
