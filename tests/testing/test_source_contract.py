"""The contract of sources catches sources that break it: each breach below fails the rules that it should."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import types
from contextlib import asynccontextmanager
from datetime import datetime

import pytest

from collectors.collection.base import Source, SourceConfig
from collectors.testing.source_contract import SourceContract

RULES = [name for name in dir(SourceContract) if name.startswith("test_")]


class NumbersConfig(SourceConfig):
    limit: int = 0


class Sound(Source[NumbersConfig]):
    """Counts; nothing is wrong with it."""

    def read(self, since):
        for number in range(since["n"] if since else 0, self.config.limit):
            yield self.chunk(b'{"id": %d}\n' % (number + 1), {"n": number + 1})


class OffByOne(Sound):
    def read(self, since):
        for number in range(since["n"] if since else 0, self.config.limit):
            yield self.chunk(b'{"id": %d}\n' % (number + 1), {"n": number})


class SkipsOne(Sound):
    def read(self, since):
        for number in range(since["n"] + 1 if since else 0, self.config.limit):
            yield self.chunk(b'{"id": %d}\n' % (number + 1), {"n": number + 1})


class Forgetful(Sound):
    def read(self, since):
        return super().read(None)


class OnlyInMemory(Sound):
    """Goes on where the object stood, whatever the position says."""

    at = 0

    def read(self, since):
        while self.at < self.config.limit:
            self.at += 1
            yield self.chunk(b'{"id": %d}\n' % self.at, {"n": self.at})


class LosesTheLast(Sound):
    def read(self, since):
        for number in range(since["n"] if since else 0, self.config.limit - 1):
            yield self.chunk(b'{"id": %d}\n' % (number + 1), {"n": number + 1})


class Doubles(Sound):
    def read(self, since):
        for number in range(since["n"] if since else 0, self.config.limit):
            yield self.chunk(b'{"id": %d}\n{"id": %d}\n' % (number + 1, number + 1), {"n": number + 1})


class TuplePosition(Sound):
    def read(self, since):
        for number in range(since["n"][0] if since else 0, self.config.limit):
            yield self.chunk(b'{"id": %d}\n' % (number + 1), {"n": (number + 1,)})


class NaiveTime(Sound):
    def __init__(self, config=None, **settings):
        super().__init__(config, **settings)
        self.now = datetime.now


class LeavesAFile(Sound):
    files = []

    async def open(self):
        self.files.append(open(__file__, "rb"))  # noqa: PTH123, SIM115


class LeavesAThread(Sound):
    stop = threading.Event()

    async def open(self):
        threading.Thread(target=self.stop.wait, args=(10,), daemon=True).start()


class LeavesAChild(Sound):
    children = []

    async def open(self):
        self.children.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))


class LeavesATask(Sound):
    tasks = []

    async def open(self):
        self.tasks.append(asyncio.ensure_future(asyncio.Event().wait()))


class FailsTwice(Sound):
    async def disconnect(self):
        if self._resources is None:
            raise RuntimeError("not connected")
        await super().disconnect()


class WithoutConnection(Sound):
    async def stream(self, since):
        for data in self.read(since):
            yield data


class TakesAnything(Sound):
    def __init__(self, config=None, **settings):
        settings.pop("no_such_setting", None)
        super().__init__(config, **settings)


BREACHES = {
    OffByOne: {"resume_from_every_position", "nothing_twice_at_the_end", "read_again_from_earlier_position"}
    | {"collect_gives_the_next_chunk"},
    SkipsOne: {
        "resume_from_every_position",
        "read_again_from_earlier_position",
        "collect_gives_the_next_chunk",
    },
    Forgetful: {"resume_from_every_position", "nothing_twice_at_the_end", "read_again_from_earlier_position"}
    | {"collect_gives_the_next_chunk"},
    OnlyInMemory: {"resume_from_every_position", "read_again_from_earlier_position"},
    LosesTheLast: {"every_id_once"},
    Doubles: {"every_id_once"},
    TuplePosition: {"position_survives_json"},
    NaiveTime: {"chunks_are_labelled"},
    LeavesAFile: {"disconnect_at_any_time", "cancel_leaves_nothing"},
    LeavesAThread: {"disconnect_at_any_time", "cancel_leaves_nothing"},
    LeavesAChild: {"disconnect_at_any_time", "cancel_leaves_nothing"},
    LeavesATask: {"disconnect_at_any_time", "cancel_leaves_nothing"},
    FailsTwice: {"disconnect_at_any_time"},
    WithoutConnection: {"collect_before_connect"},
    TakesAnything: {"unknown_setting_refused"},
}


def contract(source, **members):
    module = types.ModuleType("contract_numbers")
    module.Numbers = source
    sys.modules["contract_numbers"] = module

    @asynccontextmanager
    async def rig(_self, ids):
        yield {"limit": len(ids)}

    return type(
        "Contract",
        (SourceContract,),
        {"component": "contract_numbers:Numbers", "rig": rig, "count": 5} | members,
    )


@pytest.fixture(autouse=True)
def _quickly_and_clean(monkeypatch):
    monkeypatch.setattr("collectors.testing.source_contract._PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr("collectors.testing.faults.leaks.__defaults__", (0.1,))
    LeavesAThread.stop.clear()
    yield
    sys.modules.pop("contract_numbers", None)
    LeavesAThread.stop.set()
    while LeavesAFile.files:
        LeavesAFile.files.pop().close()
    while LeavesAChild.children:
        with LeavesAChild.children.pop() as child:
            child.kill()


def failing(checks):
    found = set()
    for rule in RULES:
        try:
            getattr(checks, rule)()
        except (Exception, pytest.fail.Exception):
            found.add(rule.removeprefix("test_"))
    return found


def test_a_sound_source_passes():
    assert failing(contract(Sound)()) == set()


@pytest.mark.parametrize("source", BREACHES, ids=lambda source: source.__name__)
def test_a_breach_is_caught(source):
    assert failing(contract(source)()) >= BREACHES[source]


def test_every_rule_is_broken_by_one_of_the_breaches():
    rules = {rule.removeprefix("test_") for rule in RULES} - {"found_by_type"}
    assert rules == set().union(*BREACHES.values())


def test_a_waiver_is_strict_and_stays_in_its_class():
    waiving = contract(Sound, waive={"every_id_once": "it counts on its fingers"})
    (mark,) = waiving.test_every_id_once.pytestmark
    assert mark.name == "xfail"
    assert mark.kwargs == {"reason": "it counts on its fingers", "strict": True}
    assert not hasattr(SourceContract.test_every_id_once, "pytestmark")


def test_a_waiver_of_a_rule_that_does_not_exist_is_refused():
    with pytest.raises(TypeError, match="there is no rule 'every_id_twice'"):
        contract(Sound, waive={"every_id_twice": ""})
