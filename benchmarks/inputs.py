"""What the benchmarks read, made from fixed seeds, and what has to come out of it.

| file | records | |
|---|---|---|
| sensors.ndjson | 2,000,000 | flat readings; 1 % out of range, 3 % failed |
| access.log | 1,000,000 | lines as Apache and nginx write them ("combined") |
| events.ndjson | 100,000 | nested, 1 kB each, one to three items in a list |
"""

# ruff: noqa: S311
from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

__all__ = ["expected", "inputs", "sensors", "write"]

START = datetime(2026, 1, 1, tzinfo=UTC)
SENSORS, LINES, EVENTS, FEW_EVENTS = 2_000_000, 1_000_000, 100_000, 10_000


def inputs(folder: Path) -> Path:
    """Write the files where they are not there yet, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "sensors.ndjson", lambda: sensors(SENSORS))
    write(folder / "one.ndjson", lambda: sensors(1))
    write(folder / "access.log", lambda: access_lines(LINES))
    write(folder / "events.ndjson", lambda: events(EVENTS))
    write(folder / "few-events.ndjson", lambda: events(FEW_EVENTS))
    return folder


def expected(folder: Path) -> dict[str, float]:
    """Return how many readings pass the filter, and the sum of what is added to them, by the standard library alone."""
    path = folder / "expected.json"
    if not path.exists():
        rows, total = 0, 0.0
        with (folder / "sensors.ndjson").open(encoding="utf-8") as file:
            for line in file:
                record = json.loads(line)
                if record["status"] != "fail" and -50 <= record["temperature"] <= 60:
                    rows += 1
                    total += record["temperature"] * 9 / 5 + 32
        path.write_text(json.dumps({"rows": rows, "sum": total}))
    return json.loads(path.read_text())


def write(path: Path, lines: Callable[[], Iterator[str]]) -> None:
    """Write the lines into a file, unless it is there."""
    if path.exists():
        return
    made, part = lines(), path.with_suffix(".part")
    with part.open("w", encoding="utf-8") as file:
        while some := list(islice(made, 20_000)):
            file.write("".join(some))
    part.rename(path)


def sensors(count: int) -> Iterator[str]:
    """Yield readings."""
    chance = random.Random(20261128).random
    for n in range(count):
        at = (START + timedelta(milliseconds=7 * n)).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
        degrees = 100 + 50 * chance() if chance() < 0.01 else -10 + 60 * chance()
        verdict = chance()
        status = "ok" if verdict < 0.9 else "warn" if verdict < 0.97 else "fail"
        yield (
            f'{{"id":{n},"device":"dev-{int(1000 * chance()):04}","ts":"{at}Z","temperature":{degrees:.3f},'
            f'"humidity":{100 * chance():.2f},"status":"{status}","seq":{n // 1000}}}\n'
        )


AGENTS = (
    "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "curl/8.17.0",
    "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
)
PATHS = (
    "/",
    "/about.html",
    "/api/v2/orders/%d",
    "/assets/site.%d.css",
    "/img/%d.webp",
    "/account",
    "/find?words=w%d",
)


def access_lines(count: int) -> Iterator[str]:
    """Yield lines of a web server's log."""
    dice = random.Random(20261129)
    chance, choose = dice.random, dice.choice
    for n in range(count):
        path = choose(PATHS)
        path = path % int(1e5 * chance()) if "%" in path else path
        at = (START + timedelta(milliseconds=86 * n)).strftime("%d/%b/%Y:%H:%M:%S +0000")
        user = "-" if chance() < 0.9 else f"user{int(500 * chance())}"
        referer = "-" if chance() < 0.4 else f"https://example.org/p{int(1000 * chance())}"
        method = "POST" if chance() < 0.1 else "GET"
        address = (
            f"{int(223 * chance()) + 1}.{int(256 * chance())}.{int(256 * chance())}.{int(256 * chance())}"
        )
        status = choose((200, 200, 200, 200, 304, 404, 500))
        yield (
            f'{address} - {user} [{at}] "{method} {path} HTTP/1.1" {status} {int(5e4 * chance())} '
            f'"{referer}" "{choose(AGENTS)}"\n'
        )


def events(count: int) -> Iterator[str]:
    """Yield events of a code host: objects in objects, and a list of objects."""
    dice = random.Random(20261130)
    upto, choose = dice.randrange, dice.choice
    for n in range(count):
        user, project = upto(1_000_000), upto(1_000_000)
        commits = [
            {
                "sha": f"{dice.getrandbits(160):040x}",
                "author": {"name": f"Author {upto(10_000)}", "email": f"a{upto(10_000)}@example.org"},
                "message": f'Mend "case {upto(10_000)}" in part {upto(100)}',
                "distinct": dice.random() < 0.9,
                "url": f"https://code.example.org/api/repos/o/r/commits/{upto(10**9)}",
            }
            for _ in range(1 + upto(3))
        ]
        yield (
            json.dumps(
                {
                    "id": str(10**10 + n),
                    "type": choose(
                        ("PushEvent", "PullRequestEvent", "IssuesEvent", "WatchEvent", "ForkEvent")
                    ),
                    "actor": {
                        "id": user,
                        "login": f"user{user}",
                        "url": f"https://code.example.org/api/users/user{user}",
                        "avatar_url": f"https://avatars.example.org/u/{user}?",
                    },
                    "repo": {
                        "id": project,
                        "name": f"org{project % 5000}/project{project}",
                        "url": f"https://code.example.org/api/repos/org{project % 5000}/project{project}",
                    },
                    "payload": {
                        "push_id": upto(10**10),
                        "size": len(commits),
                        "ref": "refs/heads/main",
                        "head": f"{dice.getrandbits(160):040x}",
                        "before": f"{dice.getrandbits(160):040x}",
                        "commits": commits,
                    },
                    "public": True,
                    "created_at": (START + timedelta(seconds=n)).strftime("%Y-%m-%dT%H:%M:%SZ"),
                },
                separators=(",", ":"),
            )
            + "\n"
        )
