from __future__ import annotations

import os

import pytest

from edgefl.errors import HashMismatchError, StorageError
from edgefl.hashing import sha256
from edgefl_device_runtime.agent.cache import Cache, file_hash


def put(cache: Cache, data: bytes) -> str:
    cache.part(sha256(data)).write_bytes(data)
    cache.adopt(sha256(data))
    return sha256(data)


def test_what_was_adopted_is_found(tmp_path):
    cache = Cache(tmp_path / "c", kept=2)
    content_hash = put(cache, b"content")
    assert cache.find(content_hash).read_bytes() == b"content"
    assert Cache(tmp_path / "c", kept=2).find(content_hash).read_bytes() == b"content"


def test_what_was_not_stored_is_not_found(tmp_path):
    assert Cache(tmp_path, kept=2).find("0" * 64) is None


def test_a_download_with_another_hash_is_deleted(tmp_path):
    cache = Cache(tmp_path, kept=2)
    cache.part("0" * 64).write_bytes(b"something else")
    with pytest.raises(HashMismatchError):
        cache.adopt("0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_rotted_is_removed_and_counts_as_absent(tmp_path):
    content_hash = put(Cache(tmp_path, kept=2), b"content")
    (tmp_path / content_hash).write_bytes(b"cintent")
    assert Cache(tmp_path, kept=2).find(content_hash) is None
    assert not (tmp_path / content_hash).exists()


def test_the_least_recently_used_files_go_first(tmp_path):
    cache = Cache(tmp_path, kept=2)
    first, second = put(cache, b"1"), put(cache, b"2")
    os.utime(cache.path(first), (1, 1))
    os.utime(cache.path(second), (2, 2))
    cache.find(first)
    third = put(cache, b"3")
    assert {file.name for file in tmp_path.iterdir()} == {first, third}
    assert cache.find(second) is None


def test_downloads_that_were_given_up_are_removed(tmp_path):
    cache = Cache(tmp_path, kept=2)
    cache.part("0" * 64).write_bytes(b"half")
    kept = put(cache, b"content")
    assert [file.name for file in tmp_path.iterdir()] == [kept]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError):
        Cache(tmp_path / "file" / "cache", kept=2)


def test_the_hash_of_a_file_is_that_of_its_content(tmp_path):
    data = os.urandom(700_000)
    (tmp_path / "file").write_bytes(data)
    assert file_hash(tmp_path / "file") == sha256(data)
