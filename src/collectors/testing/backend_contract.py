"""The contract of backends, as tests: subclass it, and pytest runs every rule against the component.

    class TestSqlite(BackendContract):
        component = "sqlite"

        def settings(self, folder):
            return {"path": str(folder / "test.db")}

Rules for queries, deletes and positions run where the backend has those. `collectors.testing.crashes` has the rule that
a process may die at any moment. A rule that a backend cannot keep is waived by name with the reason; it then has to
fail, so that a waiver which is no longer needed is found.
"""

from __future__ import annotations

import asyncio
import tempfile
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings

from collectors import registry
from collectors.chunks import Checkpoint, ChunkKey
from collectors.models import QueryCriteria
from collectors.storage.base import Backend, KeepsDeadLetters, KeepsPosition
from collectors.storage.criteria import select_rows
from collectors.testing.backend_cases import (
    HOSTILE_NAMES,
    HOSTILE_TEXTS,
    INJECTIONS,
    as_typed_table,
    stored_and_asked,
)
from collectors.testing.deliveries import NOON, everything
from collectors.testing.faults import Census, leaks
from collectors.testing.position_rules import PositionRules

__all__ = ["BackendContract"]

_IN_MEMORY = "/dev/shm"  # noqa: S108  # a place for many small stores that need not survive anything


class BackendContract(PositionRules):
    """What every backend promises."""

    def test_is_found_by_its_type(self, tmp_path: Path) -> None:
        """The type's name leads to the class, and the id is the type when no other is set."""
        assert isinstance(self.make(tmp_path), Backend)
        assert self.make(tmp_path).get_backend_id() == self.component

    def test_unknown_settings_are_refused(self, tmp_path: Path) -> None:
        """A setting that does not exist is refused by name."""
        with pytest.raises(ValueError, match="no_such_setting"):
            registry.create("backend", self.component, {**self.settings(tmp_path), "no_such_setting": 1})

    def test_needs_a_connection(self, tmp_path: Path) -> None:
        """Every operation before `connect` raises ConnectionError."""

        async def main() -> None:
            backend = self.make(tmp_path)
            for action in (backend.store({"n": 1}), backend.query(everything()), backend.delete("x")):
                with pytest.raises(ConnectionError):
                    await action

        asyncio.run(main())

    def test_disconnects_at_any_time_and_twice(self, tmp_path: Path) -> None:
        """`connect` and `disconnect` may come in any number, and leave nothing open."""

        async def main() -> None:
            before = Census.take()
            backend = self.make(tmp_path)
            await backend.disconnect()
            await backend.connect()
            await backend.connect()
            await backend.disconnect()
            await backend.disconnect()
            left = await leaks(before)
            assert left == [], left

        asyncio.run(main())

    def test_stores_dicts_lists_and_tables(self, tmp_path: Path) -> None:
        """A dict, a list of dicts and a table are stored, each under a location of its own."""

        async def scenario(backend: Backend[Any]) -> None:
            locations = [
                await backend.store(data)
                for data in (
                    {"n": 1},
                    [{"n": 2}, {"n": 3}],
                    pa.table({"n": [4]}),
                    pa.table({"n": pa.array([], pa.int64())}),
                )
            ]
            assert len({location.location_id for location in locations}) == 4
            assert {location.backend_id for location in locations} == {backend.get_backend_id()}
            assert all(location.created_at.tzinfo is not None for location in locations)
            if self.can_query:
                assert [row["n"] for row in await backend.query(everything())] == [1, 2, 3, 4]

        self.run(tmp_path, scenario)

    def test_refuses_what_is_no_record(self, tmp_path: Path) -> None:
        """Anything else raises ValueError."""

        async def scenario(backend: Backend[Any]) -> None:
            for data in (None, 3, "text", [1], []):
                with pytest.raises(ValueError, match="expected"):
                    await backend.store(data)

        self.run(tmp_path, scenario)

    def test_the_same_key_stores_once(self, tmp_path: Path) -> None:
        """Writing again under a key that is stored changes nothing."""

        async def scenario(backend: Backend[Any]) -> None:
            table, key = pa.table({"n": [1, 2]}), ChunkKey("contract/again", 1, 1)
            assert await backend.call(backend.write, table, key) == 2
            await backend.call(backend.write, table, key)
            await backend.call(backend.flush)
            if self.can_query:
                assert [row["n"] for row in await backend.query(everything())] == [1, 2]

        self.run(tmp_path, scenario)

    def test_deletes_one_location_and_nothing_else(self, tmp_path: Path) -> None:
        """`delete` takes away what the location holds; an unknown location raises KeyError."""
        if not self.can_delete:
            pytest.skip(f"{self.component} cannot delete")

        async def scenario(backend: Backend[Any]) -> None:
            locations = [await backend.store([{"n": number}, {"n": -number}]) for number in (1, 2, 3)]
            await backend.delete(locations[1].location_id)
            await backend.delete(locations[2].location_id)
            locations.append(await backend.store({"n": 4}))
            for unknown in (locations[1].location_id, locations[2].location_id, "no such place", *INJECTIONS):
                with pytest.raises(KeyError):
                    await backend.delete(unknown)
            if self.can_query:
                assert [row["n"] for row in await backend.query(everything())] == [1, -1, 4]

        self.run(tmp_path, scenario)

    def test_cannot_do_what_it_says_it_cannot(self, tmp_path: Path) -> None:
        """A backend without queries or deletes says so with RuntimeError."""

        async def scenario(backend: Backend[Any]) -> None:
            if not self.can_query:
                with pytest.raises(RuntimeError, match="cannot be queried"):
                    await backend.query(everything())
            if not self.can_delete:
                with pytest.raises(RuntimeError, match="cannot delete"):
                    await backend.delete("x")

        self.run(tmp_path, scenario)

    def test_hostile_names_and_values_survive(self, tmp_path: Path) -> None:
        """Names and texts that mean something to SQL, shells, files or terminals come back as they were."""
        self.needs_queries()
        row = {name: index for index, name in enumerate(HOSTILE_NAMES)}
        texts = [
            {"n": index, "text": text, "raw": text.encode()}
            for index, text in enumerate(HOSTILE_TEXTS)
            if not set(text) & set(self.cannot_store)
        ]

        async def scenario(backend: Backend[Any]) -> None:
            await backend.store(row)
            await backend.store(texts)
            found = await backend.query(QueryCriteria({"n": None}, None, None, None))
            assert [{name: each[name] for name in row} for each in found] == [row]
            for name in HOSTILE_NAMES:
                assert len(await backend.query(QueryCriteria({name: row[name]}, f"-{name}", None, None))) == 1
            found = await backend.query(QueryCriteria({"n": {">=": 0}}, "n", None, None))
            assert [(each["text"], each["raw"]) for each in found] == [
                (each["text"], each["raw"]) for each in texts
            ]
            for text in HOSTILE_TEXTS:
                found = await backend.query(QueryCriteria({"text": text}, None, None, None))
                assert [each["text"] for each in found] == [
                    each["text"] for each in texts if each["text"] == text
                ]

        self.run(tmp_path, scenario)

    def test_values_come_back_exactly(self, tmp_path: Path) -> None:
        """Each kind of value comes back equal and of the same Python type, no digit lost."""
        self.needs_queries()
        rows = [
            {
                "big": 2**63 - 1,
                "small": -(2**63),
                "float": 0.1 + 0.2,
                "flag": True,
                "decimal": Decimal("12345678901234567890.123456789"),
                "time": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
                "day": NOON.date(),
                "bytes": bytes(range(256)),
                "nested": {"list": [1, None, 3], "inner": {"text": "x"}},
            },
            {"big": 2**53 + 1, "small": 0, "float": -0.0, "flag": False, "decimal": Decimal("0.000000001")},
            {"time": datetime(1, 1, 1, tzinfo=UTC), "bytes": b"", "nested": {"list": [], "inner": None}},
        ]
        names = list(rows[0])

        async def scenario(backend: Backend[Any]) -> None:
            await backend.store(rows)
            found = await backend.query(everything())
            assert [{name: row.get(name) for name in names} for row in rows] == found
            assert [type(value) for value in found[0].values()] == [type(rows[0][name]) for name in names]

        self.run(tmp_path, scenario)

    def test_new_columns_appear_and_older_rows_have_none(self, tmp_path: Path) -> None:
        """Columns may come and go from one table to the next."""
        self.needs_queries()

        async def scenario(backend: Backend[Any]) -> None:
            await backend.store({"n": 1, "empty": None})
            await backend.store({"n": 2, "later": "x"})
            await backend.store({"later": "y"})
            found = await backend.query(everything())
            assert [(row["n"], row["later"]) for row in found] == [(1, None), (2, "x"), (None, "y")]
            assert all(row.get("empty") is None for row in found)

        self.run(tmp_path, scenario)

    def test_queries_mean_what_the_reference_means(self) -> None:
        """Random criteria on random rows give what `select_rows` gives."""
        self.needs_queries()

        @hypothesis_settings(max_examples=self.examples, deadline=None, database=None)
        @given(stored_and_asked(self.cannot_store))
        def check(case: tuple[list[list[dict[str, Any]]], list[QueryCriteria]]) -> None:
            parts, asked = case
            with tempfile.TemporaryDirectory(dir=_IN_MEMORY if Path(_IN_MEMORY).is_dir() else None) as folder:
                asyncio.run(self._compare(Path(folder), parts, asked))

        check()

    def test_numbers_beyond_every_type_can_be_asked_for(self, tmp_path: Path) -> None:
        """NaN, infinity and numbers that no column can hold are compared by value too."""
        self.needs_queries()
        columns = {"int": [0, -(2**63), 2**63 - 1, None], "float": [0.5, float("inf"), -1e300, None]}
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

        async def scenario(backend: Backend[Any]) -> None:
            await backend.store(rows)
            for wanted in (float("nan"), float("inf"), 10**400, -(10**30), 2**63, 0.5, Decimal("0.5"), False):
                for operator in ("=", "!=", "<", "<=", ">", ">="):
                    for name in columns:
                        criteria = QueryCriteria({name: {operator: wanted}}, None, None, None)
                        assert await backend.query(criteria) == select_rows(rows, criteria), criteria

        self.run(tmp_path, scenario)

    async def _compare(
        self, folder: Path, parts: list[list[dict[str, Any]]], asked: list[QueryCriteria]
    ) -> None:
        names = list(dict.fromkeys(name for part in parts for row in part for name in row))
        rows = [{name: row.get(name) for name in names} for part in parts for row in part]
        async with self.connected(folder) as backend:
            for part in parts:
                await backend.store(as_typed_table(part))
            for criteria in asked:
                found = await backend.query(criteria)
                expected = select_rows(rows, criteria)
                assert [row["n"] for row in found] == [row["n"] for row in expected], criteria
                assert [{name: row.get(name) for name in names} for row in found] == expected

    def test_injected_sql_changes_nothing(self, tmp_path: Path) -> None:
        """SQL in any slot of the criteria is a value or an error, never a statement."""
        self.needs_queries()
        rows = [{"n": number, "text": text} for number, text in enumerate(["a", *INJECTIONS])]

        async def scenario(backend: Backend[Any]) -> None:
            await backend.store(rows)
            for payload in INJECTIONS:
                for criteria in (
                    QueryCriteria({payload: 1}, None, None, None),
                    QueryCriteria({"n": {payload: 1}}, None, None, None),
                    QueryCriteria({}, payload, None, None),
                    QueryCriteria({}, f"-{payload}", None, None),
                    QueryCriteria({}, None, payload, None),  # type: ignore[arg-type]
                    QueryCriteria({}, None, None, payload),  # type: ignore[arg-type]
                ):
                    with pytest.raises(ValueError, match=r"."):
                        await backend.query(criteria)
                for operator in ("=", "!=", "<", ">=", "like"):
                    criteria = QueryCriteria({"text": {operator: payload}}, None, None, None)
                    assert await backend.query(criteria) == select_rows(rows, criteria)
                criteria = QueryCriteria(
                    {"text": {"in": [payload, 3]}, "n": {"not in": [payload]}}, None, None, None
                )
                assert await backend.query(criteria) == select_rows(rows, criteria)
            assert await backend.query(everything()) == rows

        self.run(tmp_path, scenario)

    def test_finds_everything_again(self, tmp_path: Path) -> None:
        """Another object with the same settings finds what was stored."""
        self.needs_queries()
        if not self.survives:
            pytest.skip(f"{self.component} forgets")

        async def first(backend: Backend[Any]) -> None:
            await backend.store([{"n": 1}, {"n": 2}])

        async def second(backend: Backend[Any]) -> None:
            location = await backend.store({"n": 3})
            assert [row["n"] for row in await backend.query(everything())] == [1, 2, 3]
            if self.can_delete:
                await backend.delete(location.location_id)

        self.run(tmp_path, first)
        self.run(tmp_path, second)

    def test_previews_without_writing(self, tmp_path: Path) -> None:
        """`preview` works without a connection and makes nothing."""
        backend = self.make(tmp_path / "not there")
        lines = backend.preview(pa.table({"n": [1], "text": ["x"]}), "pipeline/source")
        assert any("n" in line for line in lines)
        assert list(tmp_path.iterdir()) == []

    def test_connecting_and_asking_writes_nothing(self, tmp_path: Path) -> None:
        """Only storing and claiming leave traces."""

        async def scenario(backend: Backend[Any]) -> None:
            if self.can_query:
                assert await backend.query(everything()) == []
            if isinstance(backend, KeepsPosition):
                assert await backend.call(backend.stored, "contract/source") == Checkpoint(0)
            if isinstance(backend, KeepsDeadLetters):
                assert await backend.call(lambda: list(backend.dead_letters("contract"))) == []

        self.run(tmp_path, scenario)
        assert list(tmp_path.iterdir()) == []
