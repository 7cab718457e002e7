"""Who may import whom: the arrows of the architecture, imports inside of functions included."""

from __future__ import annotations

import ast

import pytest

LEFT = [
    "enums",
    "models",
    "errors",
    "settings",
    "chunks",
    "bisection",
    "native",
    "rows",
    "json_rows",
    "workers",
    "censor",
    "object_stores",
    "client_tls",
    "kafka_client",
    "nats_client",
    "http_client",
    "programs",
    "interfaces",
]
LAYERS = ["collection", "codecs", "processing", "storage", "crosscutting"]
RUNTIME = ["registry", "factories", "config", "runtime"]
FRONT = ["chaos", "cli", "__main__"]
SUPPORT = ["testing", "mocks", "examples"]

# A name may import what stands left of it: enums ← models ← {errors, settings, chunks} ← interfaces ← reporting ← layers ← …
MAY = {
    "enums": set(),
    "models": {"enums"},
    "errors": {"enums", "models"},
    "settings": {"enums", "models", "errors"},
    "chunks": {"enums", "models", "errors", "settings"},
    "bisection": {"enums", "models", "errors"},
    "native": set(),
    "rows": {"native"},
    "workers": set(),
    "censor": set(),
    "json_rows": {"native"},
    "object_stores": {"enums", "models", "errors", "settings"},
    "client_tls": {"errors", "settings"},
    "kafka_client": {"enums", "models", "errors", "settings"},
    "nats_client": {"enums", "models", "errors", "settings", "client_tls"},
    "http_client": {"errors", "settings", "client_tls", "censor"},
    "programs": {"errors", "censor"},
    "interfaces": {"enums", "models", "errors", "settings", "chunks"},
    "reporting": {*LEFT},
    "terminal": set(),
    **{layer: {*LEFT, "reporting", "terminal", layer} for layer in LAYERS},
    **{name: {*LEFT, *LAYERS, *RUNTIME} for name in RUNTIME},
    "chaos": {*LEFT, *LAYERS, *RUNTIME},
    **{name: {*LEFT, *LAYERS, *RUNTIME, *FRONT, "terminal"} for name in ["cli", "__main__"]},
    "testing": {*LEFT, *LAYERS, *RUNTIME, "chaos", "testing"},
    "mocks": {*LEFT, *LAYERS},
    "examples": {*LEFT, *LAYERS, *RUNTIME, "mocks"},
}
NOT_IN_RUNTIME = {
    "time",
    "random",
    "threading",
    "socket",
    "subprocess",
    "secrets",
    "multiprocessing",
    "concurrent",
}


def part(module):
    """Return the part of the package that a module belongs to; "" for the package itself."""
    return module.split(".")[1] if "." in module else ""


def imported(file):
    """Yield (line, module) for every import in a file, wherever it stands."""
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: imports are absolute"
            base = node.module or ""
            yield node.lineno, base
            if base == "collectors":
                yield from ((node.lineno, f"collectors.{alias.name}") for alias in node.names)


def wrong_arrows(files):
    found = []
    for file in files:
        here = part(file.module)
        if here not in MAY:
            continue  # the package itself; a part without a place is found by the next test
        for line, module in imported(file):
            target = part(module) if module.split(".")[0] == "collectors" else ""
            if target and target != here and target not in MAY[here]:
                found.append(f"{file}:{line}: {here} imports {module}")
    return found


def test_arrows(sources):
    assert wrong_arrows(sources) == []


def test_every_part_has_its_place(sources):
    assert {part(file.module) for file in sources} - {""} <= set(MAY)


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("collectors.codecs.x", "from collectors.storage.base import Backend"),
        ("collectors.codecs.x", "def f():\n    import collectors.runtime.engine"),
        ("collectors.models", "from collectors.errors import DataError"),
        ("collectors.runtime.x", "from collectors import mocks"),
        ("collectors.collection.x", "from collectors.config.load import load"),
        ("collectors.config.x", "import collectors.cli.main"),
        ("collectors.storage.x", "from collectors.testing import clock"),
    ],
)
def test_a_wrong_arrow_is_found(fake, module, text):
    assert wrong_arrows([fake(module, text)])


def clocks(files):
    """Yield what reaches for time, chance or the machine beside `Env`, which simulations replace.

    A process of its own, for records that kill one, cannot be simulated.
    """
    return [
        f"{file}:{line}: {module}"
        for file in files
        if part(file.module) == "runtime"
        and file.module not in {"collectors.runtime.env", "collectors.runtime.isolation"}
        for line, module in imported(file)
        if module.split(".")[0] in NOT_IN_RUNTIME
    ]


def test_runtime_reaches_time_and_machine_through_env(sources):
    assert clocks(sources) == []


def test_a_clock_is_found(fake):
    assert clocks([fake("collectors.runtime.x", "def f():\n    from time import monotonic")])
    assert not clocks([fake("collectors.runtime.env", "import time")])
