"""Pins by which a server is known whoever signed its certificate: of the certificate, and of the key in it.

The pin of a key is written as libcurl (``--pinnedpubkey``) and OkHttp (``CertificatePinner``) take it: the SHA-256 of
the certificate's SubjectPublicKeyInfo in DER (RFC 5280, section 4.1), in base64. It stays the same when a certificate
is renewed for the same key.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from typing import TypeAlias

from edgefl.errors import InvalidSettingError

__all__ = [
    "Pins",
    "certificate_pin",
    "pins_from_header",
    "pins_of",
    "pins_to_header",
    "public_key_info",
    "public_key_pin",
]

_SEQUENCE, _VERSION = 0x30, 0xA0
_BEFORE_THE_KEY = 5
"""Serial number, signature algorithm, issuer, validity and subject."""


Pins: TypeAlias = "tuple[str | None, str | None]"
"""The pins of one certificate: its own, and that of its key. Each may be missing; those that are there have to fit."""

_PAIR = re.compile("([0-9a-f]{64});(sha256//[A-Za-z0-9+/]{43}=)")
_MOST_PAIRS = 4


def pins_of(certificate: bytes) -> tuple[str, str]:
    """Both pins of a certificate in DER.

    Raises:
        InvalidSettingError: it is no certificate.
    """
    return certificate_pin(certificate), public_key_pin(certificate)


def pins_to_header(pairs: Iterable[Pins]) -> str:
    """Pins of certificates as the header `calls.PINS` has them: the one that the server shows first."""
    return ", ".join(f"{own};{key}" for own, key in pairs)


def pins_from_header(text: str) -> list[tuple[str, str]]:
    """Reads what `pins_to_header` made; empty where it is anything else."""
    found = [_PAIR.fullmatch(each.strip()) for each in text.split(",", _MOST_PAIRS)]
    pairs = [(each[1], each[2]) for each in found if each is not None]
    return pairs if len(pairs) == len(found) <= _MOST_PAIRS else []


def certificate_pin(certificate: bytes) -> str:
    """The SHA-256 of a certificate in DER, as 64 hexadecimal digits."""
    return hashlib.sha256(certificate).hexdigest()


def public_key_pin(certificate: bytes) -> str:
    """The pin of the key in a certificate in DER: ``sha256//`` and 44 characters of base64.

    Raises:
        InvalidSettingError: it is no certificate.
    """
    return "sha256//" + base64.b64encode(hashlib.sha256(public_key_info(certificate)).digest()).decode()


def public_key_info(certificate: bytes) -> bytes:
    """The SubjectPublicKeyInfo of a certificate, both in DER.

    Raises:
        InvalidSettingError: it is no certificate.
    """
    try:
        start, end = _content(certificate, 0, len(certificate))  # Certificate
        start, end = _content(certificate, start, end)  # TBSCertificate
        if certificate[start] == _VERSION:
            start = _next(certificate, start, end)
        for _ in range(_BEFORE_THE_KEY):
            start = _next(certificate, start, end)
        _content(certificate, start, end)
        return certificate[start : _next(certificate, start, end)]
    except (IndexError, ValueError) as error:
        raise InvalidSettingError("Expected an X.509 certificate in DER, got other bytes.") from error


def _content(data: bytes, start: int, end: int) -> tuple[int, int]:
    """Finds where the content of a sequence begins and ends."""
    if data[start] != _SEQUENCE:
        raise ValueError("no sequence")
    return _bounds(data, start, end)


def _next(data: bytes, start: int, end: int) -> int:
    """Finds where the element after this one begins."""
    return _bounds(data, start, end)[1]


def _bounds(data: bytes, start: int, end: int) -> tuple[int, int]:
    """Finds the content of an element: after a byte of type and the length (X.690, section 8.1.3)."""
    first, content = data[start + 1], start + 2
    if first < 0x80:
        length = first
    else:
        content += first & 0x7F
        length = int.from_bytes(data[start + 2 : content], "big")
    if content + length > end:
        raise ValueError("it reaches beyond what it lies in")
    return content, content + length
