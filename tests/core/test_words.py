from __future__ import annotations

import base64

import pytest

from edgefl.wire.words import is_public_key

X25519 = bytes.fromhex("302a300506032b656e032100") + bytes(range(32))


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    "key",
    [X25519, b"\x30\x81\x80" + bytes(128), b"\x30\x82\x01\xfc" + bytes(508)],
    ids=["X25519", "a length of one byte", "512 bytes, a length of two"],
)
def test_a_public_key_is_one_sequence_in_base64(key: bytes) -> None:
    assert is_public_key(in_base64(key))


@pytest.mark.parametrize(
    "word",
    [
        "",
        "AAAA",
        in_base64(X25519)[:-1],
        in_base64(X25519) + "\n",
        in_base64(X25519).replace("K", "-"),
        in_base64(X25519[:-1]),
        in_base64(X25519 + b"\0"),
        in_base64(b"\x04" + X25519[1:]),
        in_base64(b"\x30\x80" + bytes(20)),
        in_base64(b"\x30\xff" + bytes(200)),
        in_base64(b"\x30\x82\x01\xfd" + bytes(509)),
        "MAB=",  # its last two bits, which mean nothing, are not 0: one key in two forms
        "é" * 8,
        "../../etc/passwd",
    ],
)
def test_what_is_no_public_key_is_told_from_one(word: str) -> None:
    assert not is_public_key(word)
