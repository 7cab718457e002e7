"""What a seed decides before its run begins: the pipeline, the weather, and how each process comes to its end."""

from __future__ import annotations

import random

from msgspec import Struct

from collectors.testing._sim_sources import Series
from collectors.testing._sim_stores import Kind, OutsideStore, Store

__all__ = ["Life", "Plan", "Weather", "make_plan"]

_FAIR = 0.2
"""The share of runs in which no store and no disk ever fails."""


class Weather(Struct, frozen=True):
    """How often calls to a store fail before they work, behind it, or take long; and when it is away altogether."""

    before: float
    behind: float
    slow: float
    outages: tuple[tuple[float, float], ...]


class Life(Struct, frozen=True):
    """One process: how many steps until it is killed or asked to stop, and again to stop now; when it is frozen."""

    kill_at: int | None = None
    stop_at: int | None = None
    stop_again_after: float | None = None
    frozen: tuple[float, float] | None = None
    drain: float = 30.0
    patience: float = float("inf")


class Plan(Struct, frozen=True):
    """A whole run: `hosts` are the lives of each machine, one after the other; both machines are up at the same time.

    `jumps` are when and how far the time of day jumps, `full` is how often the machines' own disks are full.
    """

    series: list[Series]
    stores: list[Store]
    weather: dict[str, Weather]
    hosts: list[list[Life]]
    jumps: list[tuple[float, float]]
    memory: int
    full: float


def make_plan(seed: str, outside: OutsideStore | None = None) -> Plan:
    """Return the plan of a seed; `outside` takes the place of its first store."""
    chance = random.Random(seed)  # noqa: S311  # chance that can be repeated is the point
    stormy = chance.random()
    large = chance.random() < 0.1  # most are small, since a fault seldom needs much to show itself
    stores = [_store(chance, number) for number in range(chance.choice((1, 2, 3) if large else (1, 1, 2)))]
    stores[:1] = [outside or stores[0]]
    exact = all(store.kind != "plain" for store in stores)
    rival = exact and chance.random() < 0.25
    if rival:
        for store in stores:
            if store.kind == "transactional" and store is not outside:
                store.kind = "lettered"
    series = [
        _series(chance, number, 60 if large else 25 if rival else 12, spooled=not rival)
        for number in range(chance.choice((1, 2, 3) if large else (1, 1, 2)))
    ]
    return Plan(
        series=series,
        stores=stores,
        weather={store.id: _weather(chance, stormy) for store in stores},
        hosts=[
            [_life(chance) for _ in range(chance.choice((1, 2, 3) if large or rival else (0, 1, 1, 2)))]
            for _ in range(2 if rival else 1)
        ],
        jumps=[(chance.expovariate(1 / 30), chance.choice((-3600.0, 3600.0, 86400.0)))] * chance.randrange(2),
        memory=chance.choice((64, 1024, 2**20)),
        full=chance.choice((0.0, 0.0, 0.02, 0.2)) if stormy >= _FAIR else 0.0,
    )


def _store(chance: random.Random, number: int) -> Store:
    kind: Kind = chance.choice(("transactional", "lettered", "lettered", "buffering", "buffering", "plain"))
    store = Store(f"b{number}", kind, chance.choice((0, 0, 7, 3)), chance.choice((1, 5, 20, 1000)))
    store.names = (
        kind != "plain" or chance.random() < 0.5
    )  # only one without transactions takes parts for a trial
    return store


def _series(chance: random.Random, number: int, most: int, *, spooled: bool) -> Series:
    return Series(
        id=f"s{number}",
        count=chance.randrange(1, most),
        most=chance.choice((1, 3, 10)),
        threaded=chance.random() < 0.5,
        replays=chance.random() < 0.7,
        pushed=spooled and chance.random() < 0.3,
        rate=chance.choice((0.0, 0.0, 1.0, 20.0)),
        failures=chance.choice((0.0, 0.0, 0.02, 0.2)),
    )


def _weather(chance: random.Random, stormy: float) -> Weather:
    if stormy < _FAIR:
        return Weather(0, 0, 0, ())
    outages = [
        (start, start + 10 ** chance.uniform(0, 4.2))
        for start in (chance.expovariate(0.5) for _ in range(chance.randrange(3)))
    ]
    rates = (0.0, 0.02, 0.1, 0.3)
    return Weather(chance.choice(rates), chance.choice(rates), chance.choice((0, 0, 0.02)), tuple(outages))


def _life(chance: random.Random) -> Life:
    moment = int(10 ** chance.uniform(0.5, 2.9))
    ending = chance.random()
    frozen = None
    if chance.random() < 0.3:
        start = chance.expovariate(0.5)
        frozen = (start, start + 10 ** chance.uniform(-2, 3))
    return Life(
        kill_at=moment if ending < 0.6 else None,
        stop_at=moment if ending >= 0.6 else None,
        stop_again_after=chance.expovariate(1) if ending > 0.9 else None,
        frozen=frozen,
        drain=chance.choice((0.1, 1.0, 30.0)),
        patience=chance.choice((float("inf"), float("inf"), 60.0)),
    )
