from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from collectors.errors import CollectorsError, FatalError, TransientError
from collectors.storage import files
from collectors.storage.files import make_folders, put_new, sync_folder, translated, write_synced


def test_a_name_is_given_once_and_with_the_whole_content(tmp_path: Path) -> None:
    target, scratch = tmp_path / "entry", tmp_path / "scratch"
    assert put_new(target, b"first", scratch)
    assert not put_new(target, b"second", scratch)
    assert target.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [target]


def test_each_new_folder_is_durable_in_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    make_folders(tmp_path / "a" / "b")
    assert synced == [str(tmp_path.parent), str(tmp_path), str(tmp_path / "a")]


def test_a_folder_that_a_killed_process_has_made_is_made_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    synced: list[Path] = []
    monkeypatch.setattr(files, "sync_folder", synced.append)
    make_folders(tmp_path / "a" / "b")
    make_folders(tmp_path / "a" / "b")
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a"]


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, TransientError),
        (errno.ENOENT, TransientError),
        (errno.EIO, TransientError),
        (errno.EDQUOT, TransientError),
        (errno.EACCES, FatalError),
        (errno.EROFS, FatalError),
        (errno.ENOTSUP, FatalError),
    ],
)
def test_errors_say_path_and_reason_and_what_to_do_next(number: int, kind: type[CollectorsError]) -> None:
    with (
        pytest.raises(kind, match=f"cannot write to /lake: {os.strerror(number)}"),
        translated(Path("/lake"), "cannot write to"),
    ):
        raise OSError(number, os.strerror(number))


def test_a_failed_fsync_is_fatal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    for action in (lambda: write_synced(tmp_path / "x", b""), lambda: sync_folder(tmp_path)):
        with pytest.raises(FatalError, match="the disk failed to keep what was written"):
            action()
