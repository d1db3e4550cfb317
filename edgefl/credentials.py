"""Tokens and certificate pins as people give them: in an environment variable, a file or an invitation."""

from __future__ import annotations

import re

from edgefl.errors import InvalidSettingError
from edgefl.wire.words import is_hash

__all__ = ["SHORTEST_TOKEN", "check_pin", "check_public_key_pin", "check_token"]

SHORTEST_TOKEN = 12
"""Characters of an operator's token: fewer can be guessed."""
_TOKEN = re.compile(r"[!-~]+")
_KEY_PIN = re.compile("sha256/{1,2}([A-Za-z0-9+/]{43}=)")
"""libcurl writes two slashes, OkHttp one."""


def check_token(token: str, source: str, *, shortest: int = SHORTEST_TOKEN, hint: str | None = None) -> str:
    """The token, if it is one that can be sent and not guessed. What it is stays out of the message.

    Args:
        token: as given; white space around it is not part of it.
        source: where it came from, for the message.
        shortest: how many characters it has at least.
        hint: where to find the right one.

    Raises:
        InvalidSettingError: it is empty, too short, or holds what no token holds.
    """
    stripped = token.strip()
    if len(stripped) < shortest or not _TOKEN.fullmatch(stripped):
        raise InvalidSettingError(
            f"The token in {source} expects at least {shortest} letters, digits and signs without spaces, "
            f"got {f'{len(stripped)} characters' if stripped else 'nothing'}.",
            hint=hint,
        )
    return stripped


def check_pin(pin: str, source: str, *, hint: str | None = None) -> str:
    """A certificate pin as 64 lower-case hexadecimal digits; ``sha256:`` and colons are left out.

    Raises:
        InvalidSettingError: it is none.
    """
    digits = re.sub("^sha256:|:", "", pin.strip().lower())
    if not is_hash(digits):
        raise InvalidSettingError(
            f"Expected a certificate pin of 64 hexadecimal digits in {source}, got {pin!r:.100}.", hint=hint
        )
    return digits


def check_public_key_pin(pin: str, source: str, *, hint: str | None = None) -> str:
    """The pin of a public key as ``sha256//BASE64``; OkHttp's ``sha256/BASE64`` is taken for the same.

    Raises:
        InvalidSettingError: it is none.
    """
    found = _KEY_PIN.fullmatch(pin.strip())
    if found is None:
        raise InvalidSettingError(
            f"Expected a public key's pin like sha256// and 44 characters of base64 in {source}, got {pin!r:.100}.",
            hint=hint,
        )
    return f"sha256//{found[1]}"
