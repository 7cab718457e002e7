"""A finite copy of the first bytes of files, for runs that must not depend on the files themselves."""

from __future__ import annotations

from pathlib import Path

from collectors.collection.base import Framing
from collectors.errors import FatalError

__all__ = ["copy_files"]

_COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")
_WHOLE_FACTOR = 16


def copy_files(
    names: list[str], folder: Path, size: int, framing: Framing, *, whole: bool
) -> list[str] | None:
    """Copy whole records of the files, up to `size` bytes in all and at least one record, and return the copies.

    Files that cannot be cut, which are documents (`whole`) and compressed files, are copied as they are, up to
    sixteen times the size; None when the first one is larger.
    """
    copies: list[str] = []
    left = size
    for number, name in enumerate(names):
        if left <= 0:
            break
        try:
            data = _head(Path(name), left, framing, whole=whole, most=size * _WHOLE_FACTOR)
        except OSError as error:
            raise FatalError(f"cannot read '{name}': {error.strerror or error}") from error
        if data is None:
            break
        copy = folder / f"{number:04}" / Path(name).name
        copy.parent.mkdir(parents=True)
        copy.write_bytes(data)
        copies.append(str(copy))
        left -= len(data)
    return copies or None


def _head(path: Path, size: int, framing: Framing, *, whole: bool, most: int) -> bytes | None:
    with path.open("rb") as file:
        data = file.read(size)
        if whole or data.startswith(_COMPRESSED):
            data += file.read(most - len(data) + 1)
            return data if len(data) <= most else None
        rest = file.read(1)
        while rest:
            end = framing.cut(data + rest, final=False)
            if end > framing.preamble(data):
                return (data + rest)[:end]
            data += rest
            rest = file.read(size)
        return data
