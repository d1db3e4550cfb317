from __future__ import annotations

import hashlib
import json
import stat

import pytest

from edgefl.errors import StorageError
from edgefl_device_runtime.agent.identity import Identity


def test_an_identity_is_made_once(tmp_path):
    first = Identity.load_or_make(tmp_path)
    assert Identity.load_or_make(tmp_path) == first
    assert len(first.device_id) == 32
    assert len(first.secret) == 64


def test_two_devices_get_different_identities(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    a, b = Identity.load_or_make(tmp_path / "a"), Identity.load_or_make(tmp_path / "b")
    assert a.device_id != b.device_id
    assert a.secret != b.secret


def test_only_the_owner_can_read_the_secret(tmp_path):
    Identity.load_or_make(tmp_path)
    assert stat.S_IMODE((tmp_path / "identity.json").stat().st_mode) == 0o600


def test_the_secret_hash_is_that_of_its_text(tmp_path):
    identity = Identity.load_or_make(tmp_path)
    assert identity.secret_hash == hashlib.sha256(identity.secret.encode()).hexdigest()
    assert identity.authorization == f"Bearer {identity.device_id}.{identity.secret}"


def test_the_secret_does_not_show_in_logs(tmp_path):
    identity = Identity.load_or_make(tmp_path)
    assert identity.secret not in f"{identity} {identity!r}"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"\xff",
        json.dumps({"device_id": "a", "secret": "b"}).encode(),
        b'{"device_id": 1}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_identity_is_an_error_and_not_replaced(tmp_path, content):
    (tmp_path / "identity.json").write_bytes(content)
    with pytest.raises(StorageError, match="damaged"):
        Identity.load_or_make(tmp_path)
    assert (tmp_path / "identity.json").read_bytes() == content


def test_an_identity_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(StorageError):
        Identity.load_or_make(tmp_path / "missing")
