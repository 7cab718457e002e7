"""Nested tables for tests, and what becomes of them record by record."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import strategies as st

from collectors.storage.nesting import MOST_LEVELS

__all__ = ["Oracle", "nested_tables"]

NAMES = st.sampled_from(["a", "b", "b__c", "c", "value"])
SIMPLE = [pa.int64(), pa.string()]
KINDS, KINDS_WITHOUT_MAPS = (
    st.recursive(
        st.sampled_from(simple),
        lambda inner: st.one_of(
            inner.map(pa.list_),
            inner.map(pa.large_list),
            inner.map(lambda kind: pa.list_(kind, 2)),
            st.dictionaries(NAMES, inner, max_size=3).map(lambda fields: pa.struct(list(fields.items()))),
        ),
        max_leaves=6,
    )
    for simple in ([*SIMPLE, pa.map_(pa.string(), pa.int64())], SIMPLE)
)


def values(kind):
    """Draw values of an Arrow type."""
    if pa.types.is_struct(kind):
        made = st.fixed_dictionaries({inner.name: values(inner.type) for inner in kind})
    elif pa.types.is_fixed_size_list(kind):
        made = st.lists(values(kind.value_type), min_size=kind.list_size, max_size=kind.list_size)
    elif pa.types.is_map(kind):
        made = st.lists(st.tuples(st.sampled_from("xy"), st.none() | st.integers(0, 9)), max_size=2)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        made = st.lists(values(kind.value_type), max_size=3)
    else:
        made = st.integers(0, 9) if pa.types.is_integer(kind) else st.sampled_from(["p", "q"])
    return st.none() | made


@st.composite
def nested_tables(draw, *, maps=True):
    """Draw a table of several chunks."""
    kinds = draw(st.dictionaries(NAMES, KINDS if maps else KINDS_WITHOUT_MAPS, min_size=1, max_size=4))
    chunks = draw(st.lists(st.integers(0, 4), min_size=1, max_size=3))
    schema = pa.schema(list(kinds.items()))
    made = []
    for count in chunks:
        columns = [pa.array([draw(values(kind)) for _ in range(count)], kind) for kind in kinds.values()]
        made.append(pa.table(columns, schema=schema))
    return pa.concat_tables(made)


def is_list(kind):
    """Return whether elements become rows."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


class Oracle:
    """Goes through the records one by one: what ends up in which table, below which record, at which path."""

    def __init__(self, table):
        self.rows, self.refused, self.owners = {}, set(), {}
        fields = [(field.name, field.type, field.name) for field in table.schema]
        self.name_tables("t", fields, 0)
        for record, row in enumerate(table.to_pylist()):
            self.add("t", "", record, None, [(*field, row[field[0]]) for field in fields], 0)

    def name_tables(self, name, fields, level):
        """Say which field has which table; the first one that wants it, those nearer to the record before others."""
        flat = [each[:3] for field in fields for each in self.flat(*field, None)]
        lists = [(key, kind, path) for key, kind, path in flat if is_list(kind) and level < MOST_LEVELS]
        mine = [
            each
            for each in lists
            if self.owners.setdefault(f"{name}__{each[0]}", (name, each[2])) == (name, each[2])
        ]
        for key, kind, _ in mine:
            self.name_tables(f"{name}__{key}", self.inside(kind.value_type), level + 1)

    def inside(self, kind):
        """Return the fields of a row that an element of a list becomes."""
        if pa.types.is_struct(kind):
            return [(field.name, field.type, field.name) for field in kind]
        return [("value", kind, "")]

    def add(self, name, path, record, link, fields, level):
        """Add a row and the rows below it."""
        here = self.rows.setdefault(name, [])
        number = len(here)
        here.append((record, link, path, {}))
        own = {key for key, kind, _, _ in fields if not pa.types.is_struct(kind)}
        seen = set()
        for key, kind, dotted, value in [flat for field in fields for flat in self.flat(*field)]:
            nests = is_list(kind) and level < MOST_LEVELS
            table = f"{name}__{key}"
            another = nests and self.owners[table] != (name, dotted)
            if key in seen or ("." in dotted and key in own) or another:
                if value not in (None, []) if nests else value is not None:
                    self.refused.add(record)
                continue
            seen.add(key)
            if not nests:
                here[number][3][key] = value
                continue
            for place, element in enumerate(value or []):
                below = self.inside(kind.value_type)
                if pa.types.is_struct(kind.value_type):
                    filled = [(*field, (element or {}).get(field[0])) for field in below]
                else:
                    filled = [(*below[0], element)]
                dot = "." if path and dotted else ""
                self.add(table, f"{path}{dot}{dotted}[{place}]", record, (number, place), filled, level + 1)

    def flat(self, name, kind, dotted, value):
        """Yield a field, or what is inside of it."""
        if not pa.types.is_struct(kind):
            yield name, kind, dotted, value
            return
        for field in kind:
            inner = (value or {}).get(field.name)
            yield from self.flat(f"{name}__{field.name}", field.type, f"{dotted}.{field.name}", inner)
