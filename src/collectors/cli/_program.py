"""How this program was started, so that advice can be copied as it is printed."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

__all__ = ["program"]


def program() -> str:
    """Return what to type for `collectors`: its name where that is on the PATH, else the path that it was started by."""
    started = Path(sys.argv[0])
    if started.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m collectors"
    found = shutil.which("collectors")
    if started.name != "collectors" or (found is not None and Path(found).samefile(started)):
        return "collectors"
    return shlex.quote(sys.argv[0])
