from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from collectors.chunks import ChunkKey
from collectors.errors import FatalError
from collectors.storage.backends.memory import MemoryBackend
from collectors.testing.backend_contract import BackendContract
from collectors.testing.deliveries import everything


class TestMemory(BackendContract):
    component = "memory"
    survives = False

    def settings(self, folder: Path) -> dict[str, Any]:
        return {}


def test_a_full_store_says_what_to_do_and_keeps_what_it_has() -> None:
    async def main() -> None:
        backend = MemoryBackend(max_bytes="1 KiB")
        await backend.connect()
        await backend.store({"n": 1})
        with pytest.raises(FatalError, match="raise max_bytes"):
            await backend.call(backend.write, pa.table({"n": range(1000)}), ChunkKey("f", 1, 1))
        await backend.disconnect()
        await backend.connect()
        assert await backend.query(everything()) == [{"n": 1}]
        await backend.disconnect()

    asyncio.run(main())
