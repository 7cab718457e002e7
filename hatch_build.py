"""Builds the compiled reader of JSON with the C compiler of the machine, where there is one; without, pyarrow reads.

A wheel with it is for one platform, a wheel without it for all. COLLECTORS_NATIVE=0 leaves it out.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = "src/collectors/codecs/_native"
FLAGS = ("-O3", "-std=c11", "-fPIC", "-shared", "-Wall", "-Wextra")


class CustomBuildHook(BuildHookInterface):
    """Called by hatchling before a wheel is put together, also before an editable installation."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the library beside its source, and have it packed."""
        source = Path(self.root, FOLDER, "json_lines.c")
        library, unfinished = source.with_suffix(".so"), source.with_suffix(".unfinished")
        library.unlink(missing_ok=True)
        compiler = compiler_of_this_machine()
        if os.environ.get("COLLECTORS_NATIVE") == "0" or compiler is None:
            return
        try:
            subprocess.run(
                [*compiler, *FLAGS, "-o", unfinished, source],
                capture_output=True,
                check=True,
                errors="replace",
            )
        except (OSError, subprocess.CalledProcessError) as error:
            unfinished.unlink(missing_ok=True)
            why = error.stderr if isinstance(error, subprocess.CalledProcessError) else error
            self.app.display_warning(f"JSON will be read by pyarrow: {' '.join(compiler)} failed: {why}")
            return
        unfinished.replace(library)
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag()}"
        build_data["artifacts"].append(f"{FOLDER}/json_lines.so")


def compiler_of_this_machine() -> list[str] | None:
    """Return the C compiler that CC names, with its arguments, or the first there is."""
    if os.environ.get("CC"):
        return shlex.split(os.environ["CC"])
    return next(([found] for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)


def platform_tag() -> str:
    """Return the platform of a wheel; it is not one for many Linuxes: that is up to who publishes."""
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")
