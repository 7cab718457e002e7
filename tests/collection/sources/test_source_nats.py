"""NATS: the contract against a real server, and what becomes of messages, streams, consumers and subjects."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from _broker_reading import ids, read, read_on, records
from _nats_world import make, publish, shared_server, stream_of
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.collection.sources._broker_records import record_of
from collectors.errors import FatalError, TransientError
from collectors.testing.source_contract import SourceContract


class TestNats(SourceContract):
    component = "nats"
    endless = True

    @asynccontextmanager
    async def rig(self, ids):
        async with stream_of({"id": each} for each in ids) as (_, name):
            yield {"servers": shared_server().url, "stream": name, "chunk_size": 64}


def run(check):
    return asyncio.run(check())


def refused(chunks):
    return [chunk.metadata["reason"] for chunk in chunks if chunk.data_format == "rejected"]


# Records.


def test_many_messages_are_few_chunks():
    async def check():
        async with stream_of({"id": each} for each in range(1000)) as (_, name):
            chunks = await read(make(stream=name), until=1000)
            assert ids(chunks) == [*range(1000)]
            assert len(chunks) < 100
            assert chunks[-1].position["seq"] == 1000

    run(check)


def test_a_document_over_several_lines_is_one_record_and_several_documents_are_several():
    async def check():
        payloads = [b'{\n "id": 1,\n "text": "a\\nb"\n}\n', b'{"id": 2}\n{"id": 3}', b'{"id": 4}']
        async with stream_of(payloads) as (_, name):
            chunks = await read(make(stream=name))
            assert records(chunks) == [{"id": 1, "text": "a\nb"}, {"id": 2}, {"id": 3}, {"id": 4}]

    run(check)


def test_what_cannot_be_a_record_is_refused_with_its_number():
    async def check():
        payloads = [b'{"id": 1}', b"", b" \n", b'{"id": "' + b"x" * 200 + b'"}', b'{"id": 2}']
        async with stream_of(payloads) as (_, name):
            chunks = await read(make(stream=name, max_record=100))
            assert ids(chunks) == [1, 2]
            assert refused(chunks) == [
                f"message 2 of subject '{name}.x' is empty",
                f"message 3 of subject '{name}.x' is empty",
                f"message 4 of subject '{name}.x' has 210 bytes, more than max_record (100)",
            ]
            assert [chunk.position["seq"] for chunk in chunks] == [1, 2, 3, 4, 5]

    run(check)


def test_a_message_larger_than_a_chunk_is_read():
    async def check():
        payloads = [b'{"id": 1}', json.dumps({"id": 2, "text": "x" * 500_000}).encode(), b'{"id": 3}']
        async with stream_of(payloads) as (_, name):
            assert ids(await read(make(stream=name, chunk_size="64 KiB"), until=3)) == [1, 2, 3]

    run(check)


def test_other_formats():
    async def check():
        async with stream_of([b"a\nb", b"c"]) as (_, name):
            (chunk,) = await read(make(stream=name, format="lines"))
            assert (chunk.data_format, chunk.raw_data) == ("lines", b"a\nb\nc\n")
        async with stream_of([b"id,n\n1,2\n", b"id,m\n3,4\n"]) as (_, name):
            chunks = await read(make(stream=name, format="csv"))
            assert [chunk.raw_data for chunk in chunks] == [b"id,n\n1,2\n", b"id,m\n3,4\n"]
        async with stream_of([b'[{"id": 1}, {"id": 2}]']) as (_, name):
            (chunk,) = await read(make(stream=name, format={"type": "json"}))
            assert chunk.data_format == "json"

    run(check)


def test_columns_from_the_message():
    async def check():
        async with stream_of(server=None) as (js, name):
            await js.publish(f"{name}.a", b'{"id": 1}', headers={"Trace": 'x"y', "Other": "z"})
            await js.publish(f"{name}.b", b"{}")
            await js.publish(f"{name}.c", b"[1]")
            add = {
                "at": "time",
                "from": "subject",
                "n": "sequence",
                "trace": "header:Trace",
                "all": "headers",
            }
            chunks = await read(make(stream=name, add=add))
            first, second = records(chunks)[:2]
            assert abs(datetime.fromisoformat(first.pop("at")) - datetime.now(UTC)) < timedelta(minutes=1)
            assert first == {
                "from": f"{name}.a",
                "n": 1,
                "trace": 'x"y',
                "all": {"Trace": 'x"y', "Other": "z"},
                "id": 1,
            }
            second.pop("at")
            assert second == {"from": f"{name}.b", "n": 2, "trace": None, "all": {}}
            assert chunks[-1].raw_data.splitlines()[-1] == b"[1]", "the codec says what is wrong with it"

    run(check)


KEYS = st.text(st.characters(codec="utf-8", exclude_characters='"\\'), min_size=1, max_size=5)
VALUES = st.none() | st.integers() | st.text(max_size=5)
OBJECTS = st.dictionaries(
    KEYS, VALUES | st.lists(VALUES, max_size=3) | st.dictionaries(KEYS, VALUES, max_size=3), max_size=4
)


@given(OBJECTS, st.sampled_from([None, 1, "\t"]), st.sampled_from(["", " ", "\n", "\r\n"]))
@settings(max_examples=100, deadline=None)
def test_a_json_object_stays_what_it_is_with_columns_in_front(value, indent, around):
    value.pop("subject", None)
    payload = (around + json.dumps(value, indent=indent) + around).encode()
    raw, reason = record_of(payload, "it", 10**6, json=True, extra={"subject": "ü.x"})
    assert reason is None
    assert raw.strip().count(b"\n") == 0
    assert json.loads(raw) == {"subject": "ü.x", **value}
    raw, reason = record_of(payload, "it", 10**6, json=True, extra={})
    assert (reason, json.loads(raw), raw.strip().count(b"\n")) == (None, value, 0)


# Where reading begins, and what is gone.


def test_subjects_choose_messages():
    async def check():
        async with stream_of() as (js, name):
            for n in range(6):
                await js.publish(f"{name}.{'abc'[n % 3]}", b'{"id": %d}' % n)
            assert ids(await read(make(stream=name, subject=f"{name}.a"))) == [0, 3]
            chunks = await read(make(stream=name, subject=[f"{name}.a", f"{name}.c"]))
            assert ids(chunks) == [0, 2, 3, 5]

    run(check)


def test_start():
    async def check():
        async with stream_of({"id": each} for each in range(5)) as (js, name):
            assert ids(await read(make(stream=name, start=4))) == [3, 4]
            later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
            assert ids(await read(make(stream=name, start=later))) == []
            earlier = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
            assert ids(await read(make(stream=name, start=earlier))) == [0, 1, 2, 3, 4]
            (chunk,) = await read(make(stream=name, start="new"))
            assert (chunk.raw_data, chunk.position["seq"]) == (b"", 5), "noted before the first message"
            await publish(js, f"{name}.x", [{"id": 5}])
            assert ids(await read(make(stream=name, start="new"), chunk.position)) == [5]

    run(check)


def test_removed_messages_are_counted():
    async def check():
        async with stream_of({"id": each} for each in range(10)) as (js, name):
            chunks = await read(make(stream=name, chunk_size=64))
            since = chunks[2].position
            await js.purge_stream(name, keep=2)
            source = make(stream=name)
            assert ids(await read(source, since)) == [8, 9]
            assert source.lost == [5]
            assert source.told == [
                f"stream '{name}': 5 messages behind 3 were removed, by a limit of the stream or a purge, before they were read"
            ]
            filtered = make(stream=name, subject=f"{name}.*")
            await read(filtered, since)
            assert filtered.lost == []
            assert "up to 5 messages" in filtered.told[0]
            assert "not all may have been for this source" in filtered.told[0]

    run(check)


def test_messages_removed_in_front_of_the_reader_are_counted_and_those_deleted_one_by_one_are_not():
    async def check():
        async with stream_of({"id": each} for each in range(3)) as (js, name):
            source = make(stream=name, chunk_size=64)
            await source.connect()
            async with aclosing(source.stream(None)) as stream:
                for _ in range(3):
                    await anext(stream)
                await publish(js, f"{name}.x", [{"id": 3}, {"id": 4}, {"id": 5}])
                await js.delete_msg(name, 5)
                assert ids([await anext(stream), await anext(stream)]) == [3, 5]
            assert source.lost == []
            await source.disconnect()
        async with stream_of(({"id": each} for each in range(3)), max_msgs=3) as (js, name):
            source = make(stream=name, chunk_size="64 KiB")
            await source.connect()
            async with aclosing(source.stream(None)) as stream:
                assert ids([await anext(stream)]) in ([0], [0, 1], [0, 1, 2])
                big = [{"id": n, "text": "x" * 30_000} for n in range(3, 30)]
                await publish(js, f"{name}.x", big)
                found = [{"id": 0}]
                while found[-1]["id"] != 29:
                    found += records([await anext(stream)])
            await source.disconnect()
            gone = {*range(1, 30)} - {each["id"] for each in found}
            assert sum(source.lost) == len({each for each in gone if each > 2})
            assert gone

    run(check)


def test_a_stream_with_a_limit_for_each_subject_loses_nothing_by_design():
    async def check():
        async with stream_of(({"id": each} for each in range(5)), max_msgs_per_subject=1) as (js, name):
            source = make(stream=name)
            chunks = await read(source)
            await publish(js, f"{name}.x", [{"id": 5}, {"id": 6}])
            assert ids(await read(source, chunks[-1].position)) == [6]
            assert source.lost == []

    run(check)


def test_a_stream_that_was_made_anew_stops_the_source():
    async def check():
        async with stream_of({"id": each} for each in range(5)) as (js, name):
            chunks = await read(make(stream=name))
            await js.delete_stream(name)
            with pytest.raises(FatalError, match=f"stream '{name}': stream not found; is its name right"):
                await read(make(stream=name), chunks[-1].position)
            await js.add_stream(name=name, subjects=[f"{name}.>"])
            await publish(js, f"{name}.x", ({"id": each} for each in range(9)))
            with pytest.raises(FatalError, match="is not the one that was read before.*new `id`"):
                await read(make(stream=name), chunks[-1].position)

    run(check)


def test_a_stream_that_has_lost_its_end_stops_the_source():
    async def check():
        async with stream_of({"id": each} for each in range(5)) as (_, name):
            chunks = await read(make(stream=name))
            with pytest.raises(FatalError, match="ends at message 5, but message 7 was read before"):
                await read(make(stream=name), {**chunks[-1].position, "seq": 7})

    run(check)


def test_a_consumer_that_is_deleted_is_made_again():
    async def check():
        async with stream_of([{"id": 1}]) as (js, name):
            source = make(stream=name)
            await source.connect()
            async with aclosing(source.stream(None)) as stream:
                chunk = await anext(stream)
                (info,) = await js.consumers_info(name)
                await js.delete_consumer(name, info.name)
                with pytest.raises(TransientError, match="consumer deleted"):
                    await anext(stream)
            assert ids(await read_on(source, chunk.position)) == []
            await source.disconnect()
            async with asyncio.timeout(10):
                while await js.consumers_info(name):  # the server forgets it in its own time
                    await asyncio.sleep(0.02)

    run(check)
