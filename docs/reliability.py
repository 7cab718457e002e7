"""The parts of docs/reliability.md that are made: the museum's table, figures that were measured, and the peers'.

Called by generate.py. The page itself is written by hand; each part stands between two comments that name it.
"""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reliability.md"
RESULTS = ROOT / "benchmarks" / "results"


def page(text: str) -> str:
    """Return the page with its parts made anew."""
    parts = {"museum": museum(), "figures": figures(), "peers": peers()}
    for name, part in parts.items():
        pattern = re.compile(rf"(<!-- {name}: .*? -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
        if len(pattern.findall(text)) != 1:
            raise SystemExit(f"{PAGE} has no part '{name}'")
        text = pattern.sub(lambda found, part=part: f"{found[1]}\n{part}\n{found[2]}", text)
    return text


def museum() -> str:
    """Return the table of mutants."""
    path = ROOT / "tests" / "museum" / "_catalogue.py"
    spec = importlib.util.spec_from_file_location("museum_catalogue", path)
    assert spec is not None  # noqa: S101
    assert spec.loader is not None  # noqa: S101
    catalogue = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(catalogue)
    rows = [
        f"| {mutant.bug} | [{mutant.peer}]({mutant.link}) | {_test(mutant.caught_by)} |"
        for mutant in catalogue.MUTANTS.values()
    ]
    head = f"{len(rows)} bugs of {len({mutant.peer for mutant in catalogue.MUTANTS.values()})} products."
    return "\n".join([head, "", "| bug | had by | caught by |", "|---|---|---|", *rows])


def _test(node: str) -> str:
    path, _, name = node.partition("::")
    return f"[{name.replace('::', ' ')}](../{path})"


def figures() -> str:
    """Return what the full runs measured: the newest line of each figure and case."""
    newest: dict[tuple[str, ...], dict[str, Any]] = {}
    for line in _lines("reliability.jsonl"):
        about = {"figure", "at", "commit", "machine"}
        case = [str(value) for key, value in line.items() if key not in about and isinstance(value, str)]
        newest[line["figure"], *case] = line
    if not newest:
        return "No full run is recorded yet."
    rows = []
    for (name, *case), line in sorted(newest.items()):
        numbers = " · ".join(
            f"{key.replace('_', ' ')} {_number(value)}"
            for key, value in line.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        )
        rows.append(f"| {name} | {', '.join(case)} | {numbers} | {line['at'][:10]}, {line['commit']} |")
    machines = sorted({line["machine"] for line in newest.values()})
    head = ["| what | of | figures | when, commit |", "|---|---|---|---|"]
    return "\n".join([*head, *rows, "", f"Measured on: {'; '.join(machines)}."])


def peers() -> str:
    """Return the peers' table: the newest line of each."""
    newest = {line["contestant"]: line for line in _lines("peers.jsonl")}
    if not newest:
        return "No run is recorded yet."
    rows = [_peer(line) for line in newest.values()]
    head = [
        "| | kills | lost | stored twice | rounds that went wrong | by hand | one bad line in 1,000 |",
        "|---|---|---|---|---|---|---|",
    ]
    notes = [
        f"- {name} {line['version']}: {line['settings']}. `{line['command']}` ({line['at_time'][:10]}, {line['commit']})"
        for name, line in newest.items()
    ]
    machines = sorted({line["machine"] for line in newest.values()})
    return "\n".join([*head, *rows, "", *notes, "", f"Measured on: {'; '.join(machines)}."])


def _peer(line: dict[str, Any]) -> str:
    bad = line["bad_input"]
    stops = any(bad["exit_codes"])
    what = (
        f"stops; {bad['good_lines_missing']:,} good records not stored until the line is removed by hand"
        if stops
        else f"{bad['set_aside']} set aside with the reason, {bad['good_lines_missing']} good records missing"
    )
    numbers = [line[key] for key in ("kills", "lost", "duplicated", "rounds_wrong", "manual")]
    return f"| {line['contestant']} | {' | '.join(map(_number, numbers))} | {what} |"


def _number(value: float) -> str:
    return f"{value:,}"


def _lines(name: str) -> list[dict[str, Any]]:
    path = RESULTS / name
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
