"""Arrow: the IPC stream format; files in the IPC file format are read too.

    format: arrow

Delivery: nothing is lost; bytes that are no Arrow data are set aside as one record.
Position: a stream is one chunk; a file is read batch by batch, at most 64k rows at a time.

The types are those of the data. Columns come in the order of the first chunk, new ones behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa

from collectors.codecs._tables import broken, conform, pieces
from collectors.codecs.base import Codec, CodecConfig, Decoded
from collectors.errors import ConfigurationError, DataError

__all__ = ["ArrowCodec", "ArrowConfig"]

_FILE_MAGIC = b"ARROW1"


class ArrowConfig(CodecConfig):
    """Settings of Arrow data; `columns` must be left out, since the data say their types."""


class ArrowCodec(Codec[ArrowConfig]):
    """Reads and writes Arrow IPC; see the module."""

    def __init__(self, config: ArrowConfig | None = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        if self.config.columns:
            raise ConfigurationError(
                "arrow data say their types: leave `columns` out, or use the processor 'cast'"
            )

    def decode(self, data: bytes, schema: pa.Schema | None = None) -> Decoded:
        """Decode a whole stream or file."""
        if not data:
            return conform(schema.empty_table() if schema is not None else pa.table({}), schema)
        source = pa.BufferReader(data)
        try:
            if data.startswith(_FILE_MAGIC):
                table = pa.ipc.open_file(source).read_all()
            else:
                table = pa.ipc.open_stream(source).read_all()
                if source.tell() < len(data):
                    raise pa.ArrowInvalid(f"{len(data) - source.tell()} bytes lie behind its end")
            table.validate(full=True)
            return conform(table, schema)
        except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
            return broken(data, f"not an Arrow stream: {error}", schema)

    def encode(self, table: pa.Table) -> bytes:
        """Return one stream."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return bytes(sink.getvalue().to_pybytes())

    def cut(self, data: bytes, *, final: bool) -> int:
        """Return 0 until the stream ends: it is not cut."""
        return len(data) if final else 0

    def slices(self, file: BinaryIO, start: int) -> Iterator[tuple[int, bytes]]:
        """Yield the rows of a file from number `start` on as streams, each with the number of the row behind it.

        For sources of files: one batch is in memory at a time. Raises DataError when the file cannot be read.
        """
        try:
            yield from pieces(_batches(file), 0, start)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"not an Arrow file: {error}") from error


def _batches(file: BinaryIO) -> Iterator[pa.RecordBatch]:
    magic = file.read(len(_FILE_MAGIC))
    file.seek(0)
    if magic == _FILE_MAGIC:
        reader = pa.ipc.open_file(file)
        for number in range(reader.num_record_batches):
            yield _valid(reader.get_batch(number))
    elif magic:
        for batch in pa.ipc.open_stream(file):
            yield _valid(batch)


def _valid(batch: pa.RecordBatch) -> pa.RecordBatch:
    batch.validate(full=True)
    return batch


COMPONENT = ArrowCodec
