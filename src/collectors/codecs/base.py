"""What an author of a codec subclasses: bytes of a chunk to an Arrow table and back.

The seam is `decode(bytes, schema) → (table, rejected)`: a pure function of its arguments, called in a worker thread.
One malformed record costs that record alone; no digit and no key is ever dropped silently.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, TypeVar, cast

import pyarrow as pa
from msgspec import Struct, field
from pydantic import field_validator

from collectors.chunks import Rejected
from collectors.settings import Settings, column_type, settings_class

__all__ = ["Codec", "CodecConfig", "Decoded", "column_type"]


class CodecConfig(Settings):
    """Settings that every codec has."""

    columns: dict[str, str] = {}
    """Columns whose type is known beforehand, for example `{id: string, price: "decimal(12, 2)", ts: timestamp}`.
    Other columns are inferred from the first chunk in which they appear."""

    @field_validator("columns")
    @classmethod
    def _known_types(cls, columns: dict[str, str]) -> dict[str, str]:
        for column, text in columns.items():
            try:
                column_type(text)
            except ValueError as error:
                raise ValueError(f"column '{column}': {error}") from None
        return columns

    def types(self) -> dict[str, pa.DataType]:
        """Return the declared columns with their Arrow types."""
        return {column: column_type(text) for column, text in self.columns.items()}


ConfigT = TypeVar("ConfigT", bound=CodecConfig)


class Decoded(Struct):
    """What became of a chunk: `read` records were counted in the bytes, independently of how many rows there are.

    Always `read == table.num_rows + len(rejected)`; the runtime stops the flow if not. `rejected` is in order.
    """

    table: pa.Table
    read: int
    rejected: list[Rejected] = field(default_factory=list)


class Codec(ABC, Generic[ConfigT]):
    """Base of codecs. Also the `Framing` of a source: where a chunk may be cut."""

    config_class: ClassVar[type[CodecConfig]] = CodecConfig
    joinable: ClassVar[bool] = False
    """Whether the bytes of two chunks, one after the other, are a chunk."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        declared = settings_class(cls, Codec)
        if declared is not None:
            cls.config_class = cast("type[CodecConfig]", declared)

    def __init__(self, config: ConfigT | None = None, **settings: Any) -> None:
        self.config = cast("ConfigT", config if config is not None else self.config_class(**settings))

    @abstractmethod
    def decode(self, data: bytes, schema: pa.Schema | None = None) -> Decoded:
        """Decode a chunk.

        `schema` is that of the table before (None: the first chunk). The new table has all its columns, in the same
        order and type or a wider one, and new columns behind them. Never raises for what is in the bytes.
        """

    @abstractmethod
    def encode(self, table: pa.Table) -> bytes:
        """Return the table in this format. Raises DataError for values that it cannot express."""

    def decode_letter(self, raw: bytes, head: bytes, schema: pa.Schema | None = None) -> Decoded:
        """Decode the bytes of a record that was set aside, behind the preamble that its chunk had."""
        return self.decode(head + raw, schema)

    def preamble(self, head: bytes) -> int:
        """Return how many first bytes of a stream every chunk needs in front of it; see `Framing`."""
        return 0

    def cut(self, data: bytes, *, final: bool) -> int:
        """Return how many leading bytes of `data` are whole records; here: up to the last newline."""
        return len(data) if final else data.rfind(b"\n") + 1
