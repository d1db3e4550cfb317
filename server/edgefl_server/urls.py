"""Says of an address whether it is one of HTTP, and whether other machines can use it; pure."""

from __future__ import annotations

from urllib.parse import urlsplit

__all__ = ["is_http_url", "is_of_this_machine"]


def is_http_url(text: str) -> bool:
    """Whether it begins with ``http://`` or ``https://`` and names a machine, and no port that cannot be."""
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket too few
        return False


def is_of_this_machine(url: str) -> bool:
    """Whether only programs on this machine can use an address."""
    return urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost")
