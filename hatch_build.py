"""Builds the compiled helpers with the C compiler of the machine, where there is one; what each does is there without it too.

A wheel with them is for one platform, a wheel without them for all. COLLECTORS_NATIVE=0 leaves them out. One of them
needs Python's headers and is left out without them; it uses the stable ABI, so a wheel is for no single version.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES = "src/collectors/**/_native/*.c"
FLAGS = ("-O3", "-std=c11", "-fPIC", "-shared", "-Wall", "-Wextra", f"-I{sysconfig.get_path('include')}")
LEFT_OPEN = ("-undefined", "dynamic_lookup") if sys.platform == "darwin" else ()
"""How a linker is told that the interpreter has the rest."""


class CustomBuildHook(BuildHookInterface):
    """Called by hatchling before a wheel is put together, also before an editable installation."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the library beside its source, and have it packed."""
        compiler = compiler_of_this_machine()
        for source in sorted(Path(self.root).glob(SOURCES)):
            library = source.with_suffix(".so")
            library.unlink(missing_ok=True)
            if os.environ.get("COLLECTORS_NATIVE") == "0" or compiler is None:
                continue
            problem = build(compiler, source, library)
            if problem is not None:
                self.app.display_warning(f"{source.name} is left out, so some things are slower: {problem}")
                continue
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{platform_tag()}"
            build_data["artifacts"].append(str(library.relative_to(self.root)))


def build(compiler: list[str], source: Path, library: Path) -> str | None:
    """Make the library; return what went wrong, if anything did."""
    unfinished = library.with_suffix(".unfinished")
    command = [*compiler, *FLAGS, *LEFT_OPEN, "-o", str(unfinished), str(source)]
    try:
        subprocess.run(command, capture_output=True, check=True, errors="replace")
    except (OSError, subprocess.CalledProcessError) as error:
        unfinished.unlink(missing_ok=True)
        why = error.stderr if isinstance(error, subprocess.CalledProcessError) else error
        return f"{' '.join(compiler)} failed: {why}"
    unfinished.replace(library)
    return None


def compiler_of_this_machine() -> list[str] | None:
    """Return the C compiler that CC names, with its arguments, or the first there is."""
    if os.environ.get("CC"):
        return shlex.split(os.environ["CC"])
    return next(([found] for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)


def platform_tag() -> str:
    """Return the platform of a wheel; it is not one for many Linuxes: that is up to who publishes."""
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")
