from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefl.errors import StorageError
from edgefl_server.storage.blobs import DamagedBlobError, FolderBlobs


@settings(max_examples=30)
@given(st.lists(st.binary(max_size=100), max_size=5))
def test_what_was_put_is_found_by_its_hash(tmp_path_factory: pytest.TempPathFactory, contents: list[bytes]) -> None:
    blobs = FolderBlobs(tmp_path_factory.mktemp("blobs") / "b")
    for content in contents:
        assert blobs.put(content) == hashlib.sha256(content).hexdigest()
    assert sorted(blobs) == sorted({hashlib.sha256(content).hexdigest() for content in contents})
    for content in contents:
        assert blobs.get(hashlib.sha256(content).hexdigest()) == content


@pytest.mark.parametrize("name", ["../secret", "..", "/etc/passwd", "a" * 63, "A" * 64, "a" * 64 + "\n", ""])
def test_a_name_that_is_no_hash_never_becomes_a_path(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text("mine")
    blobs = FolderBlobs(tmp_path / "blobs")
    for method in (blobs.get, blobs.path, blobs.delete):
        with pytest.raises(StorageError, match="64 lower-case"):
            method(name)


def test_a_damaged_blob_is_noticed(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path / "blobs")
    digest = blobs.put(b"content")
    path = blobs.path(digest)
    assert path is not None
    path.write_bytes(b"contenT")
    with pytest.raises(StorageError, match="damaged"):
        blobs.get(digest)


def test_a_missing_blob_is_one_clear_error(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path / "blobs")
    assert blobs.path("0" * 64) is None
    blobs.delete("0" * 64)
    with pytest.raises(StorageError, match="Could not read"):
        blobs.get("0" * 64)


def test_what_a_crash_left_half_written_is_removed_at_the_start(tmp_path: Path) -> None:
    folder = tmp_path / "blobs"
    digest = FolderBlobs(folder).put(b"whole")
    (folder / f".{'1' * 64}.abc.part").write_bytes(b"half")
    blobs = FolderBlobs(folder)
    assert [path.name for path in folder.iterdir()] == [digest]
    assert blobs.get(digest) == b"whole"


def test_file_and_folder_are_synced_before_a_put_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = FolderBlobs(tmp_path / "blobs")
    events: list[str] = []
    fsync, replace = os.fsync, os.replace
    folder_inode = (tmp_path / "blobs").stat().st_ino

    def noted_fsync(descriptor: int) -> None:
        events.append("folder" if os.fstat(descriptor).st_ino == folder_inode else "file")
        fsync(descriptor)

    def noted_replace(source: str, target: str) -> None:
        events.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    blobs.put(b"content")
    assert events == ["file", "rename", "folder"]


def test_a_file_is_adopted_with_the_promise_of_a_put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = FolderBlobs(tmp_path / "blobs")
    file = tmp_path / "file"
    file.write_bytes(b"content")
    events: list[str] = []
    fsync, replace = os.fsync, os.replace
    folder_inode = (tmp_path / "blobs").stat().st_ino

    def noted_fsync(descriptor: int) -> None:
        events.append("folder" if os.fstat(descriptor).st_ino == folder_inode else "file")
        fsync(descriptor)

    def noted_replace(source: Path, target: Path) -> None:
        events.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    digest = hashlib.sha256(b"content").hexdigest()
    blobs.adopt(file, digest)
    assert events == ["file", "rename", "folder"]
    assert (blobs.get(digest), file.exists()) == (b"content", False)
    with pytest.raises(StorageError, match="Could not write"):
        blobs.adopt(file, digest)
    with pytest.raises(StorageError, match="64 lower-case"):
        blobs.adopt(file, "../elsewhere")


def a_folder(path: Path) -> None:
    path.mkdir()


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_circle(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize("instead", [a_folder, a_pipe, a_circle])
def test_something_else_under_the_name_of_a_blob_is_damage_and_can_be_deleted(
    tmp_path: Path, instead: Callable[[Path], None]
) -> None:
    blobs = FolderBlobs(tmp_path / "blobs")
    digest = blobs.put(b"content")
    path = tmp_path / "blobs" / digest
    path.unlink()
    instead(path)
    for read in (blobs.get, blobs.verify):
        with pytest.raises(DamagedBlobError):
            read(digest)
    blobs.delete(digest)
    assert list(blobs) == []


def test_a_file_in_the_place_of_the_folder_is_damage(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path / "blobs")
    digest = blobs.put(b"content")
    shutil.rmtree(tmp_path / "blobs")
    (tmp_path / "blobs").write_bytes(b"")
    with pytest.raises(DamagedBlobError):
        blobs.get(digest)


def test_a_folder_that_was_removed_is_made_again(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path / "blobs")
    (tmp_path / "arrived").write_bytes(b"two")
    shutil.rmtree(tmp_path / "blobs")
    assert blobs.get(blobs.put(b"one")) == b"one"
    shutil.rmtree(tmp_path / "blobs")
    digest = hashlib.sha256(b"two").hexdigest()
    blobs.adopt(tmp_path / "arrived", digest)
    assert blobs.get(digest) == b"two"


def test_a_disk_that_does_not_give_a_blob_back_for_ten_minutes_has_lost_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    blobs = FolderBlobs(tmp_path / "blobs", lambda: now)
    digest, other = blobs.put(b"content"), blobs.put(b"other")

    def failing(self: Path) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def fails() -> type[StorageError]:
        with monkeypatch.context() as patched:
            patched.setattr(Path, "read_bytes", failing)
            with pytest.raises(StorageError) as raised:
                blobs.get(digest)
        return raised.type

    assert fails() is StorageError
    now = 599.0
    assert fails() is StorageError
    assert blobs.get(digest) == b"content"  # and it counts anew
    now = 1000.0
    assert fails() is StorageError
    assert blobs.get(other) == b"other"
    now = 1600.0
    assert fails() is DamagedBlobError
