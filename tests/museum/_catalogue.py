"""All mutants, from the files in mutants/."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).parent


def _load(path: Path):
    name = f"museum_{path.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


patching = _load(HERE / "_patching.py")
MUTANTS = {
    mutant.name: mutant for path in sorted((HERE / "mutants").glob("*.py")) for mutant in _load(path).MUTANTS
}
