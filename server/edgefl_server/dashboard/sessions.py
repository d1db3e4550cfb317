"""Sessions of operators in a browser: cookies that are signed, end, can be ended, and are worth what the key is."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

__all__ = ["Session", "Sessions", "is_own_page"]

_FORM = re.compile(r"([\w-]{0,512})\.(\d{1,12})\.([\w-]{22})\.([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True)
class Session:
    """A browser in which an operator has signed in.

    Attributes:
        name: the operator's; whether its key is still good has to be looked up.
        until: when it ends, in seconds since 1970.
        nonce: no other session has it.
        token: what its forms carry, and no page of anybody else can know.
    """

    name: str
    until: int
    nonce: str
    token: str


class Sessions:
    """The sessions of a server. Nothing is kept of them but which were ended before their time.

    Args:
        secret: of the server; whoever starts it with another one ends all sessions.
        seconds: how long a session lasts.
        draw: makes nonces: 22 letters of base64.
    """

    def __init__(
        self, secret: bytes, seconds: float, draw: Callable[[], str] = lambda: secrets.token_urlsafe(16)
    ) -> None:
        self.seconds = seconds
        self._key = hmac.digest(secret, b"edgefl: sessions of operators in a browser", hashlib.sha256)
        self._draw = draw
        self._ended: dict[str, int] = {}
        self.cookie = f"edgefl-{self._mac('the name of the cookie')[:8]}"
        """Its name: two servers on one machine, at different ports, share a browser's cookies."""

    def begin(self, name: str, now: float) -> str:
        """The cookie's value for an operator who has shown a key."""
        signed = f"{_encoded(name)}.{int(now + self.seconds)}.{self._draw()}"
        return f"{signed}.{self._mac(signed)}"

    def read(self, value: str, now: float) -> Session | None:
        """The session of a cookie; None: it was not made here, is over, or was ended."""
        found = _FORM.fullmatch(value)
        if found is None or not hmac.compare_digest(self._mac(value.rpartition(".")[0]), found[4]):
            return None
        until, nonce = int(found[2]), found[3]
        if now >= until or nonce in self._ended:
            return None
        return Session(_decoded(found[1]), until, nonce, self._mac(f"forms of {nonce}"))

    def end(self, session: Session, now: float) -> None:
        """Lets nobody use its cookie any more, wherever a copy of it is."""
        self._ended = {nonce: until for nonce, until in self._ended.items() if until > now}
        self._ended[session.nonce] = session.until

    def _mac(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()


def is_own_page(headers: Mapping[str, str]) -> bool:
    """Whether a request that changes something was sent by a page of this server, as browsers say themselves.

    Args:
        headers: of the request, by names in lower case.
    """
    if (site := headers.get("sec-fetch-site")) is not None:
        return site == "same-origin"
    # Browsers say that only of pages that came by TLS or from this machine; all say the origin of a form.
    try:
        origin = urlsplit(headers.get("origin", "")).netloc
    except ValueError:  # no browser says so
        return False
    return bool(origin) and origin == headers.get("host", "")


def _encoded(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).rstrip(b"=").decode()


def _decoded(text: str) -> str:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
