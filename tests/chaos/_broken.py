"""Run as a script by test_broken_builds.py: breaks the product in one way, then runs the command line.

Each mistake is one that a collector could have made; chaos must find it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
from msgspec.structs import replace

from collectors.cli.main import main
from collectors.runtime.delivery import Edge
from collectors.runtime.intake import Intake
from collectors.storage import sqlite_store
from collectors.storage.backends.sqlite import SqliteBackend


def put(path, value):
    """Write a file whole or not at all: a torn file is another mistake."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(value))
    new.replace(path)


commit, claim, stored = SqliteBackend.commit, SqliteBackend.claim, SqliteBackend.stored


def checkpoint_before_rows():
    def broken(self, delivery):
        seq = commit(self, replace(delivery, table=pa.table({})))
        self.write(delivery.table, replace(delivery.key, flow="later/" + delivery.key.flow.partition("/")[2]))
        return seq

    SqliteBackend.commit = broken


def position_in_a_second_file():
    """Rows are committed, then a file beside them says how far."""

    def note(self):
        return Path(self.config.path).with_suffix(".position")

    def noted(self, checkpoint):
        seq, position = json.loads(note(self).read_text()) if note(self).exists() else (0, None)
        return replace(checkpoint, seq=seq, position=position)

    def broken_commit(self, delivery):
        commit(self, delivery)
        put(note(self), [delivery.key.seq, delivery.position])
        return delivery.key.seq

    SqliteBackend.commit = broken_commit
    SqliteBackend.claim = lambda self, flow: noted(self, claim(self, flow))
    SqliteBackend.stored = lambda self, flow: noted(self, stored(self, flow))
    rows_without_a_key()


def rows_without_a_key():
    """A commit is taken whatever is stored, and its rows with it."""
    sqlite_store.check_follows = lambda stored, delivery: True
    SqliteBackend.location = lambda self, key: uuid4().hex


def blind_retry():
    """A commit whose outcome is unknown is made once more, whatever is stored, and rows have no key."""
    retrying = Edge._retrying

    def blind(self, attempt, seq=None):
        return retrying(self, attempt)

    Edge._retrying = blind
    rows_without_a_key()


def rows_again_on_resume():
    """A new owner begins with the position before the last commit."""

    def broken_commit(self, delivery):
        before = stored(self, delivery.key.flow)
        put(Path(self.config.path).with_suffix(".before"), before.position)
        return commit(self, delivery)

    def broken_claim(self, flow):
        checkpoint = claim(self, flow)
        before = Path(self.config.path).with_suffix(".before")
        return replace(checkpoint, position=json.loads(before.read_text())) if before.exists() else checkpoint

    SqliteBackend.commit, SqliteBackend.claim = broken_commit, broken_claim


def acknowledged_before_durable():
    """Senders are told that their records are kept before they are."""
    keep = Intake._keep

    async def broken(self, group):
        await self._source.commit(group[-1].position)
        await keep(self, group)

    Intake._keep = broken


def letters_forgotten():
    """Dead letters are dropped."""
    SqliteBackend.commit = lambda self, delivery: commit(self, replace(delivery, dead_letters=[]))


def nothing():
    """Break nothing."""


globals()[sys.argv[1]]()
main(["chaos", *sys.argv[2:]])
