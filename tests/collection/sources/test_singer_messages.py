"""What a tap writes becomes pieces with positions: nothing is lost wherever it breaks off, and little comes twice."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.collection.sources._singer_messages import Changed, Mark, Sorter
from collectors.errors import FatalError

SCHEMA = b'{"type":"SCHEMA","stream":"s","schema":{},"key_properties":["id"]}'


def record(row, stream="s"):
    return b'{"type":"RECORD","stream":"%b","record":%b}' % (stream.encode(), row)


def state(**value):
    return json.dumps({"type": "STATE", "value": value}).encode()


def sort(lines, since=None, limit=10**6, told=None, **options):
    """Return the pieces that a whole run gives."""
    sorter = Sorter(since or Mark(), limit, (told if told is not None else {}).setdefault, **options)
    pieces = []
    for line in lines:
        sorter.feed(line)
        pieces += sorter.take()
    return pieces + sorter.finish()


def rows_of(pieces):
    return [line for piece in pieces if piece.reason is None for line in piece.raw.splitlines()]


def tap(rows, since, every, overlap):
    """Yield the messages of a tap that says after each `every` rows where to go on, and then begins `overlap` before it."""
    bookmark = json.loads(since.state)["row"] if since.state else 0
    yield SCHEMA
    for number, row in enumerate(rows, 1):
        if number > max(0, bookmark - (overlap if bookmark else 0)):
            yield row if row.startswith(b"#") else record(row)
        if every and number % every == 0 and number > bookmark:
            yield state(row=number)


ROWS = st.lists(st.sampled_from([b"", b"#", b"x"]), min_size=1, max_size=60).map(
    lambda kinds: [
        b"# junk %d" % n if kind == b"#" else b'{"id":%d,"pad":"%b"}' % (n, kind * n)
        for n, kind in enumerate(kinds)
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    rows=ROWS,
    every=st.integers(0, 20),
    overlap=st.integers(0, 5),
    limit=st.integers(1, 400),
    batch=st.integers(1, 30),
    breaks=st.lists(st.integers(0, 8), max_size=8),
)
def test_every_line_once_wherever_it_breaks_off(rows, every, overlap, limit, batch, breaks):
    """Whatever is handed on before a crash, the next run goes on behind it; a line that is set aside counts like a record."""
    if overlap:
        rows = [row for row in rows if not row.startswith(b"#")]  # only records are known again
    mark, found = Mark(), []
    for survives in [*breaks, 10**9]:
        sorter = Sorter(mark, limit, lambda name, text: None)
        pieces = []
        for number, line in enumerate(tap(rows, mark, every, overlap), 1):
            sorter.feed(line)
            if number % batch == 0:
                pieces += sorter.take()
        pieces += sorter.finish()
        for piece in pieces[:survives]:
            mark = Mark.of(json.loads(json.dumps(piece.mark.position())))
            found += [piece.raw] if piece.reason else piece.raw.splitlines()
    assert found == rows


@settings(max_examples=200, deadline=None)
@given(
    rows=ROWS,
    other=ROWS,
    every=st.integers(0, 20),
    limit=st.integers(1, 400),
    survives=st.integers(0, 8),
)
def test_nothing_is_lost_when_the_tap_gives_other_records(rows, other, every, limit, survives):
    """A tap that gives something else behind its STATE is read again in full: all that it gives now is there."""
    pieces = sort(tap(rows, Mark(), every, 0), limit=limit)[:survives]
    mark = pieces[-1].mark if pieces else Mark()
    lines = list(tap(other, mark, every, 0))
    try:
        after = sort(lines, mark, limit)
    except Changed:
        after = sort(lines, Mark(mark.state, last=mark.last), limit)
    stored = [piece.raw for piece in pieces + after if piece.reason] + rows_of(pieces + after)
    bookmark = json.loads(mark.state)["row"] if mark.state else 0
    assert set(other[bookmark:]) <= set(stored)


def test_records_are_kept_byte_for_byte():
    row = b'{"a": 1.10, "b":12345678901234567890.5,  "c":"\\u00e9", "d":{"e":[1E3]}}'
    (piece,) = sort([SCHEMA, record(row)])
    assert piece.raw == row + b"\n"


def test_a_chunk_ends_at_the_last_state_and_the_rest_waits_for_the_next():
    pieces = sort([record(b'{"id":1}'), state(at=1), record(b'{"id":2}'), state(at=2), record(b'{"id":3}')])
    assert [(piece.raw, piece.mark.state, piece.mark.records) for piece in pieces] == [
        (b'{"id":1}\n', '{"at": 1}', 0),
        (b'{"id":2}\n', '{"at": 2}', 0),
        (b'{"id":3}\n', '{"at": 2}', 1),
    ]


def test_without_a_state_chunks_flow_when_they_are_large():
    pieces = sort([record(b'{"id":%d}' % n) for n in range(100)], limit=200)
    assert len(pieces) == 5
    assert all(len(piece.raw) < 220 for piece in pieces)


def test_a_state_alone_moves_the_position():
    (piece,) = sort([state(at=1)])
    assert (piece.raw, piece.mark.state) == (b"", '{"at": 1}')
    assert sort([state(at=1)], piece.mark) == []


def test_the_state_keeps_its_digits():
    text = '{"cursor": 1.10, "id": 123456789012345678901234567890}'
    (piece,) = sort([b'{"type":"STATE","value":%b}' % text.encode()])
    assert piece.mark.position()["state"] == text


@pytest.mark.parametrize(
    "more",
    [
        {"progress_markers": {"replication_key_value": 5}},
        {"starting_replication_value": None, "replication_key_signpost": "2026-01-01"},
        {"partitions": [], "nothing": None},
    ],
)
def test_what_a_tap_cannot_go_on_from_is_no_place(more):
    """The Singer SDK writes such states inside of streams that it begins anew."""
    old = {"bookmarks": {"s": {"value": 1}}}
    new = {"bookmarks": {"s": {"value": 1, **more}}}
    since = Mark(json.dumps(old))
    (piece,) = sort([record(b'{"id":1}'), state(**new), record(b'{"id":2}')], since)
    assert (piece.raw, piece.mark.state, piece.mark.records) == (b'{"id":1}\n{"id":2}\n', since.state, 2)


def test_records_of_a_bookmark_are_known_again_only_with_a_key():
    rows = [record(b'{"id":1}'), record(b'{"id":2}')]
    keyed = sort([SCHEMA, *rows, state(id=2)])[-1].mark
    assert rows_of(sort([SCHEMA, *rows, record(b'{"id":3}')], keyed)) == [b'{"id":3}']
    assert rows_of(sort([*rows, record(b'{"id":3}')], keyed)) == [b'{"id":1}', b'{"id":2}', b'{"id":3}']


def test_a_record_that_went_back_to_what_it_was_is_new():
    """It came as A, then as B; as A alone it is no repetition."""
    first, second = b'{"id":1,"v":"a"}', b'{"id":1,"v":"b"}'
    mark = sort([SCHEMA, record(first), record(second), state(at=2)])[-1].mark
    assert rows_of(sort([SCHEMA, record(first)], mark)) == [first]
    assert rows_of(sort([SCHEMA, record(first), record(second)], mark)) == []
    assert rows_of(sort([SCHEMA, record(second), record(first)], mark)) == [first]
    assert rows_of(sort([SCHEMA, record(first), state(at=3), record(second)], mark)) == [first, second]


def test_a_run_that_repeats_less_than_before_is_another():
    mark = sort([record(b'{"id":1}'), record(b'{"id":2}')])[-1].mark
    with pytest.raises(Changed):
        sort([record(b'{"id":1}')], mark)
    with pytest.raises(Changed):
        sort([record(b'{"id":1}'), state(at=1), record(b'{"id":2}')], mark)
    assert sort([], mark) == []
    (piece,) = sort([state(at=3)], mark)
    assert piece.mark == Mark('{"at": 3}')


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"Traceback (most recent call last):", "no Singer message: JSON is malformed"),
        (b'{"stream":"s"}', "missing required field `type`"),
        (b"[1]", "no Singer message"),
        (b'{"type":"RECORD","record":{"id":1}}', "RECORD without a stream"),
        (b'{"type":"RECORD","stream":"s"}', "RECORD without a record"),
        (b'{"type":"RECORD","stream":"s","record":[1]}', "RECORD without a record"),
        (b'{"type":"STATE","value":3}', "STATE whose value is no JSON object"),
        (b'{"type":"STATE"}', "STATE whose value is no JSON object"),
        (b'{"type":"STATE","value":{"a":"\xff"}}', "STATE whose value is no JSON object"),
        (b"[" * 100_000, "no Singer message"),
    ],
)
def test_lines_that_are_nothing_are_set_aside(line, reason):
    pieces = sort([record(b'{"id":1}'), line, record(b'{"id":2}'), b"", b"  "])
    assert [piece.raw for piece in pieces] == [b'{"id":1}\n', line, b'{"id":2}\n']
    assert [piece.mark.records for piece in pieces] == [1, 2, 3]
    assert reason in pieces[1].reason


def test_columns_of_messages_are_added():
    line = b'{"type":"RECORD","stream":"s","record":%b,"version":7,"time_extracted":"2026-01-01T00:00:00Z"}'
    found = rows_of(sort([line % b'{"id":1 }', line % b"{}", record(b'{"id":2}')], label=True, metadata=True))
    more = '"_stream":"s","_sdc_extracted_at":"2026-01-01T00:00:00Z","_sdc_table_version":7}'
    assert found == [
        b'{"id":1,' + more.encode(),
        b"{" + more.encode(),
        b'{"id":2,"_stream":"s","_sdc_extracted_at":null,"_sdc_table_version":null}',
    ]


def test_what_is_not_asked_for_is_told_once():
    told = {}
    version = b'{"type":"ACTIVATE_VERSION","stream":"s","version":7}'
    lines = [version, version, b'{"type":"LOG","text":"hello"}', b'{"type":"LOG","text":"again"}']
    rows = [record(b'{"id":1}'), record(b'{"id":2}', "t"), record(b'{"id":3}', "t")]
    pieces = sort([*lines, *rows], told=told, streams={"s"})
    assert rows_of(pieces) == [b'{"id":1}']
    told = list(told.values())
    assert len(told) == 3
    assert "version 7 count from now on; rows of earlier versions stay" in told[0]
    assert "type 'LOG', which nothing is known about; the first: " in told[1]
    assert told[2] == "records of the stream 't' come from the tap and are left out"


def test_records_in_files_are_not_left_out_silently():
    with pytest.raises(FatalError, match="in files .BATCH., which are not read; take `batch_config` out"):
        sort([b'{"type":"BATCH","stream":"s","manifest":["file:///tmp/x"]}'])


def test_a_position_of_another_source_is_refused():
    with pytest.raises(FatalError, match="not one of a Singer tap"):
        Mark.of({"state": 3})
