"""Invitations from operators to devices' owners: one line that holds address, population, token and pins."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import asdict, dataclass

from edgefl.errors import InvalidSettingError

__all__ = ["Invitation"]

_PINS = ("certificate_pin", "public_key_pin", "next_certificate_pin", "next_public_key_pin")


@dataclass(frozen=True)
class Invitation:
    """Says where to take part, and gives the right to.

    Attributes:
        server: URL.
        population: whose work the device will do.
        token: shown once, when the device takes part for the first time.
        certificate_pin: SHA-256 of the server's certificate in hexadecimal, or None.
        public_key_pin: that of its public key, as ``sha256//BASE64``, or None.
        next_certificate_pin: that of the certificate that the server is going to have, which is as good; or None.
        next_public_key_pin: that of its public key, or None.
    """

    server: str
    population: str
    token: str
    certificate_pin: str | None = None
    public_key_pin: str | None = None
    next_certificate_pin: str | None = None
    next_public_key_pin: str | None = None

    def __repr__(self) -> str:
        return f"Invitation({self.server}, {self.population})"  # a token does not belong into a log

    def encode(self) -> str:
        """The line that `edgefl server invite` prints: base64url, without padding, of JSON."""
        said = {name: value for name, value in asdict(self).items() if value is not None or name in _PINS[:2]}
        text = json.dumps(said, separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Invitation:
        """Reads what `encode` made, also when a mail broke it into several lines; later members are ignored.

        Raises:
            InvalidSettingError: it is not one, or was not copied in full.
        """
        compact = "".join(text.split())
        try:
            document = json.loads(base64.urlsafe_b64decode(compact + "=" * (-len(compact) % 4)))
            server, population, token = (document[name] for name in ("server", "population", "token"))
            pins = [document.get(name) for name in _PINS]
            given = (server, population, token, *(pin for pin in pins if pin not in (None, "")))
            if all(isinstance(field, str) and field for field in given):
                return cls(server, population, token, *(pin or None for pin in pins))
        except (binascii.Error, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass  # whatever it is instead, it is said below in the same words
        raise InvalidSettingError(
            f"Expected an invitation as `edgefl server invite` prints it, got {len(compact)} other characters.",
            hint="Copy the whole line.",
        )
