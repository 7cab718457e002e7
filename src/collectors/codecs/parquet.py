"""Apache Parquet files.

    format: parquet

Delivery: nothing is lost; bytes that are no Parquet file are set aside as one record.
Position: a file is one chunk; a source of files reads it by row groups, at most 64k rows at a time.

The types are those of the file. Columns come in the order of the first chunk, new ones behind.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from collectors.codecs._tables import broken, conform, pieces
from collectors.codecs.base import Codec, CodecConfig, Decoded
from collectors.errors import ConfigurationError, DataError

__all__ = ["ParquetCodec", "ParquetConfig"]

_BATCH_ROWS = 64 * 1024


class ParquetConfig(CodecConfig):
    """Settings of Parquet files; `columns` must be left out, since the files say their types."""


class ParquetCodec(Codec[ParquetConfig]):
    """Reads and writes Parquet; see the module."""

    def __init__(self, config: ParquetConfig | None = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        if self.config.columns:
            raise ConfigurationError(
                "parquet files say their types: leave `columns` out, or use the processor 'cast'"
            )

    def decode(self, data: bytes, schema: pa.Schema | None = None) -> Decoded:
        """Decode a whole file."""
        if not data:
            return conform(schema.empty_table() if schema is not None else pa.table({}), schema)
        try:
            table = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
            table.validate(full=True)
            return conform(table, schema)
        except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
            return broken(data, f"not a Parquet file: {error}", schema)

    def encode(self, table: pa.Table) -> bytes:
        """Return one file, compressed with zstd. Raises DataError for types that Parquet does not have."""
        sink = io.BytesIO()
        try:
            pq.write_table(table, sink, compression="zstd")
        except (pa.ArrowException, ValueError) as error:
            raise DataError(f"Parquet cannot hold this table: {error}") from error
        return sink.getvalue()

    def cut(self, data: bytes, *, final: bool) -> int:
        """Return 0 until the stream ends: a file is not cut."""
        return len(data) if final else 0

    def slices(self, file: BinaryIO, start: int) -> Iterator[tuple[int, bytes]]:
        """Yield the rows of a file from number `start` on as Arrow streams, each with the number of the row behind it.

        For sources of files: pages of one row group are in memory at a time, and row groups before `start` are not
        read. Raises DataError when the file cannot be read.
        """
        try:
            parquet = pq.ParquetFile(file, pre_buffer=False)
            row = 0
            for group in range(parquet.num_row_groups):
                rows = parquet.metadata.row_group(group).num_rows
                if row + rows > start:
                    yield from pieces(_batches(parquet, group), row, start)
                row += rows
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"not a Parquet file: {error}") from error


def _batches(parquet: pq.ParquetFile, group: int) -> Iterator[pa.RecordBatch]:
    for batch in parquet.iter_batches(_BATCH_ROWS, row_groups=[group], use_threads=False):
        batch.validate(full=True)
        yield batch


COMPONENT = ParquetCodec
