"""Finding columns by name, with the nearest name where there is none."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import pyarrow as pa

from collectors.errors import ConfigurationError

__all__ = ["nearest", "require"]

_MOST_NAMES = 20


def nearest(name: str, names: Sequence[str]) -> str:
    """Return the end of a message about a name that is not there: the nearest one, and which there are."""
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    some = ", ".join(names[:_MOST_NAMES]) + (", …" if len(names) > _MOST_NAMES else "")
    return f": {f'did you mean {near[0]!r}? There' if near else 'there'} are: {some or 'none'}"


def require(setting: str, names: Sequence[str], schema: pa.Schema) -> None:
    """Raise ConfigurationError unless each name stands for one column."""
    for name in names:
        found = len(schema.get_all_field_indices(name))
        if found > 1:
            raise ConfigurationError(f"{setting}: the name '{name}' stands for {found} columns of the data")
        if not found:
            raise ConfigurationError(f"{setting}: no column '{name}'{nearest(name, schema.names)}")
