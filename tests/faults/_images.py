"""What a power cut may leave of a folder, worked out from the shim's journal of what was done to it.

A disk promises little: what fsync or fdatasync was called for is there; of everything written behind that, any part
may be, each page of 4 KiB by itself. Names are promised by two models. `posix`: a name (made, moved, removed) is there
once fsync was called on its folder. `ext4`: names change in the order of the calls, and fsync of anything makes all
changes before it durable (they share one journal), as does the passing of time; so some prefix of them is there.

Pillai et al., All File Systems Are Not Created Equal (ALICE), OSDI 2014; Mohan et al., Finding Crash-Consistency Bugs
with Bounded Black-Box Crash Testing (CrashMonkey), OSDI 2018.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Call", "Disk", "Node", "read_journal"]

_HEAD = struct.Struct("<IIIIQq")
_KINDS = [
    "",
    "write",
    "sync",
    "rename",
    "link",
    "unlink",
    "truncate",
    "create",
    "mkdir",
    "rmdir",
    "mark",
]
PAGE = 4096


@dataclass(frozen=True)
class Call:
    """A call in the journal. `path2` is the new name of rename and link, `offset` the length of truncate."""

    kind: str
    path: str
    path2: str
    inode: int
    offset: int
    data: bytes


def read_journal(path: Path) -> list[Call]:
    """Return the calls of a journal in their order."""
    content = memoryview(path.read_bytes())
    calls, at = [], 0
    while at < len(content):
        kind, *lengths, inode, offset = _HEAD.unpack_from(content, at)
        at += _HEAD.size
        parts = []
        for length in lengths:
            parts.append(bytes(content[at : at + length]))
            at += length
        calls.append(
            Call(_KINDS[kind], os.fsdecode(parts[0]), os.fsdecode(parts[1]), inode, offset, parts[2])
        )
    return calls


@dataclass
class Node:
    """A file, or a folder when `names` is not None. `synced` is its durable content, `since` the changes behind that."""

    synced: bytes = b""
    since: list[Call] = field(default_factory=list)
    names: dict[str, Node] | None = None
    synced_names: dict[str, Node] = field(default_factory=dict)

    def content(self, changes: list[Call] | None = None) -> bytes:
        """Return the content with all changes, or with some."""
        data = bytearray(self.synced)
        for call in self.since if changes is None else changes:
            if call.kind == "truncate":
                del data[call.offset :]
                data.extend(bytes(call.offset - len(data)))
            else:
                data.extend(bytes(max(0, call.offset - len(data))))
                data[call.offset : call.offset + len(call.data)] = call.data
        return bytes(data)


class Disk:
    """A folder as the calls change it. Feed it calls with `do`, then `cut` the power as often as wanted."""

    def __init__(self, root: Path) -> None:
        """Begin with what is in the folder now, all of it durable."""
        self._root = str(root)
        self._inodes: dict[int, Node] = {}
        self.top = self._look(root)
        self._ordered: list[dict] = [_tree(self.top)]

    def _look(self, path: Path) -> Node:
        if path.is_dir():
            node = Node(names={child.name: self._look(child) for child in path.iterdir()})
            node.synced_names = dict(node.names)
        else:
            node = Node(path.read_bytes())
        self._inodes[path.stat().st_ino] = node
        return node

    def do(self, call: Call) -> None:
        """Apply a call."""
        if call.kind in {"write", "truncate"}:
            self._inodes[call.inode].since.append(call)
        elif call.kind == "sync":
            self._sync(self._inodes[call.inode])
        elif call.kind != "mark":
            self._name(call)
            self._ordered.append(_tree(self.top))

    def _sync(self, node: Node) -> None:
        if node.names is not None:
            node.synced_names = dict(node.names)
        else:
            node.synced, node.since = node.content(), []
        self._ordered = self._ordered[-1:]

    def _name(self, call: Call) -> None:
        folder, name = self._find(call.path)
        if call.kind in {"create", "mkdir"}:
            folder[name] = self._inodes[call.inode] = Node(names={} if call.kind == "mkdir" else None)
        elif call.kind in {"unlink", "rmdir"}:
            folder.pop(name)
        else:
            folder2, name2 = self._find(call.path2)
            folder2[name2] = folder[name] if call.kind == "link" else folder.pop(name)

    def _find(self, path: str) -> tuple[dict[str, Node], str]:
        *folders, name = os.path.relpath(path, self._root).split("/")
        node = self.top
        for folder in folders:
            node = node.names[folder]
        return node.names, name

    def write_all(self, target: Path) -> None:
        """Write the folder as it is, nothing lost."""
        _write(_tree(self.top), target, lambda node: node.content())

    def cut(self, target: Path, model: str, chance: random.Random) -> None:
        """Write one of the folders that a power cut now could leave."""
        if model == "ext4":
            tree = chance.choice([self._ordered[0], self._ordered[-1], chance.choice(self._ordered)])
        else:
            tree = _surviving(self.top, chance.random(), chance)
        keep = chance.choice([0.0, 0.5, 0.9, 1.0])
        _write(tree, target, lambda node: _torn(node, keep, chance))


def _tree(node: Node) -> dict | Node:
    """Return a copy of the names; the files in it are the nodes themselves."""
    return node if node.names is None else {name: _tree(child) for name, child in node.names.items()}


def _surviving(folder: Node, keep: float, chance: random.Random) -> dict:
    """Return the names that fsync was called for; each change behind that is there or not."""
    tree = {}
    for name in sorted(folder.synced_names.keys() | folder.names.keys()):
        before, after = folder.synced_names.get(name), folder.names.get(name)
        node = after if before is after or chance.random() < keep else before
        if node is not None:
            tree[name] = node if node.names is None else _surviving(node, keep, chance)
    return tree


def _torn(node: Node, keep: float, chance: random.Random) -> bytes:
    """Return the durable content with any of the pages that were written since."""
    return node.content([part for call in node.since for part in _pages(call) if chance.random() < keep])


def _pages(call: Call) -> Iterator[Call]:
    """Split a write at the borders of the disk's pages: each is written or not by itself."""
    if call.kind == "truncate":
        yield call
        return
    start, end = call.offset, call.offset + len(call.data)
    while start < end:
        behind = min(end, start - start % PAGE + PAGE)
        data = call.data[start - call.offset : behind - call.offset]
        yield Call("write", "", "", call.inode, start, data)
        start = behind


def _write(tree: dict, target: Path, content) -> None:
    target.mkdir()
    for name, node in tree.items():
        if isinstance(node, dict):
            _write(node, target / name, content)
        elif not name.endswith(
            "-shm"
        ):  # SQLite's map of its log, changed through memory, made anew when it is not there
            (target / name).write_bytes(content(node))
