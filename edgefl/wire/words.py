"""The forms that words from outside may have. Whatever becomes part of a path, a log line or a query is checked here.

A message is checked where it is decoded, so that nothing behind that has to ask again: a hash that is a path, or an id
with a line break, never gets any further.
"""

from __future__ import annotations

import base64
import binascii
import re

from edgefl.errors import MessageError

__all__ = [
    "CODEC",
    "DEVICE_BEGINNING",
    "HASH",
    "INVITATION_ID",
    "NAME",
    "RANDOM_ID",
    "SHORT_NAME",
    "check_codec",
    "check_hash",
    "check_name",
    "is_hash",
    "is_name",
    "is_public_key",
    "is_random_id",
    "is_short_name",
    "printable",
]

HASH = "[0-9a-f]{64}"
"""The regular expression of a SHA-256, and of 256 bits that are a secret."""
RANDOM_ID = "[0-9a-f]{32}"
"""The regular expression of 128 random bits: the id of a device, a process, a state folder."""
DEVICE_BEGINNING = "[0-9a-f]{6,32}"
"""The regular expression of a device's id, or of so much of its beginning that people may type instead."""
INVITATION_ID = "[0-9a-f]{12}"
"""The regular expression of the id of an invitation, which is no part of its token."""
NAME = "[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
"""The regular expression of an id or a name in a message."""
CODEC = "[A-Za-z0-9][A-Za-z0-9._+-]{0,127}"
"""The regular expression of a codec's name in a message: a name, or several with a + between them."""
SHORT_NAME = "[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
"""The regular expression of a population's or a run's name: people choose them, and ids are made of them."""
_LONGEST_TEXT = 256
_LARGEST_KEY = 512
"""Bytes, where an X25519 key takes 44 and one of P-521 158. An RSA key, which may take more, agrees on nothing."""
_DER_SEQUENCE = 0x30


def is_hash(word: str) -> bool:
    """Whether it is a SHA-256, or a secret, in 64 lower-case hexadecimal digits."""
    return re.fullmatch(HASH, word) is not None


def is_random_id(word: str) -> bool:
    """Whether it is 128 bits in 32 lower-case hexadecimal digits."""
    return re.fullmatch(RANDOM_ID, word) is not None


def is_name(word: str) -> bool:
    """Whether it is an id or a name: 1 to 128 letters, digits, dots, dashes and underscores; the first no sign."""
    return re.fullmatch(NAME, word) is not None


def is_short_name(word: str) -> bool:
    """Whether it is a name of at most 64 characters."""
    return re.fullmatch(SHORT_NAME, word) is not None


def is_public_key(word: str) -> bool:
    """Whether it is a SubjectPublicKeyInfo (RFC 5280) in DER and base64: one sequence that ends where the word does.

    What kind of key it is, and whether it is one, is for whoever is going to use it.
    """
    if len(word) > 2 * _LARGEST_KEY:
        return False
    try:
        key = base64.b64decode(word, validate=True)
    except (binascii.Error, ValueError):
        return False
    if not 2 <= len(key) <= _LARGEST_KEY or key[0] != _DER_SEQUENCE or base64.b64encode(key).decode() != word:
        return False
    if key[1] < 0x80:  # the length itself; else how many bytes it takes
        return len(key) == 2 + key[1]
    start = 2 + key[1] - 0x80
    return len(key) == start + int.from_bytes(key[2:start], "big")


def check_hash(word: str, what: str) -> str:
    """Returns a hash.

    Args:
        word: from outside.
        what: the field's name.

    Raises:
        MessageError: it is none.
    """
    if not is_hash(word):
        raise MessageError(f"Expected 64 lower-case hexadecimal digits as {what}, got {_shown(word)}.")
    return word


def check_name(word: str, what: str) -> str:
    """Returns an id or a name.

    Args:
        word: from outside.
        what: the field's name.

    Raises:
        MessageError: it is none.
    """
    if not is_name(word):
        raise MessageError(
            f"Expected 1 to 128 letters, digits, dots, dashes and underscores as {what}, got {_shown(word)}."
        )
    return word


def check_codec(word: str, what: str) -> str:
    """Returns the name of a codec.

    Args:
        word: from outside.
        what: the field's name.

    Raises:
        MessageError: it is none.
    """
    if re.fullmatch(CODEC, word) is None:
        raise MessageError(
            f"Expected 1 to 128 letters, digits, dots, dashes, underscores and plus signs as {what}, got "
            f"{_shown(word)}."
        )
    return word


def printable(word: str, what: str) -> str:
    """Returns a text that is only shown and compared.

    Args:
        word: from outside.
        what: the field's name.

    Raises:
        MessageError: it is longer than 256 characters, or one of them controls a terminal or breaks a line.
    """
    if len(word) > _LONGEST_TEXT or not word.isprintable():
        raise MessageError(f"Expected at most {_LONGEST_TEXT} printable characters as {what}, got {_shown(word)}.")
    return word


def _shown(word: str) -> str:
    """A word so that it can stand in a line of a log, whatever it holds."""
    return ascii(word[:40]) + ("…" if len(word) > 40 else "")
