"""Bounds how often somebody may ask, and finds out who that is behind a proxy."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeAlias

from starlette.types import Scope

from edgefl.errors import InvalidSettingError

__all__ = ["ADDRESS_RATE", "DEVICE_RATE", "Network", "RateLimit", "client_address", "networks"]

Network: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network"

DEVICE_RATE = 3000
"""Requests of a device in a minute: a fast one with rounds of a second makes some hundred."""
ADDRESS_RATE = 1000
"""Requests in a minute that are refused to one address: a whole fleet behind a router may have lost its secrets."""
_MOST_KNOWN = 20_000
"""As many are told apart; 200 bytes each."""
_FORWARDED = b"x-forwarded-for"
_MOST_HOPS = 32
_IPV6_OF_ONE = 64
"""Whoever has one address of IPv6 has all of the same first 64 bits."""


class RateLimit:
    """Lets each have so many in a minute: a bucket that holds as many, and fills up evenly (Turner 1986).

    Args:
        a_minute: how many; 0: any number.
        clock: in seconds; never set.
    """

    def __init__(self, a_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._rate, self._clock = float(a_minute), a_minute / 60.0, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, who: str) -> float:
        """Takes one; the seconds until there is one, where there is none."""
        if not self._rate:
            return 0.0
        level, now = self._level(who)
        if level < 1:
            return (1 - level) / self._rate
        self._buckets[who] = (level - 1, now)
        self._buckets.move_to_end(who)
        if len(self._buckets) > _MOST_KNOWN:
            self._buckets.popitem(last=False)
        return 0.0

    def wait(self, who: str) -> float:
        """The seconds until there is one; takes none."""
        if not self._rate or who not in self._buckets:
            return 0.0
        level, _ = self._level(who)
        return 0.0 if level >= 1 else (1 - level) / self._rate

    def _level(self, who: str) -> tuple[float, float]:
        now = self._clock()
        level, at = self._buckets.get(who, (self._most, now))
        return min(self._most, level + (now - at) * self._rate), now


def networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Networks and addresses as people type them, such as ``10.0.0.0/8``.

    Raises:
        InvalidSettingError: one is none.
    """
    found = []
    for text in texts:
        try:
            found.append(ipaddress.ip_network(text.strip(), strict=False))
        except ValueError as error:
            raise InvalidSettingError(
                f"--trusted-proxies expects addresses and networks such as 10.0.0.0/8, got {text!r:.80}."
            ) from error
    return tuple(found)


def client_address(scope: Scope, trusted: Sequence[Network]) -> str:
    """The address of whoever asks; of IPv6 the network of it.

    ``X-Forwarded-For`` is believed only as far as trusted proxies have written it: from its end, the first address that
    is none of theirs. Anybody can write what stands before.

    Args:
        scope: of the request.
        trusted: networks of proxies.
    """
    client = scope.get("client")
    peer = str(client[0]) if client else ""
    if not trusted:
        return _shown(peer)
    found = _address(peer)
    if found is None:
        return peer
    if _is_in(found, trusted):
        named = b",".join(value for name, value in scope["headers"] if name == _FORWARDED)
        for hop in reversed(named.decode("latin-1").rsplit(",", _MOST_HOPS)[-_MOST_HOPS:]):
            before = _address(hop.strip())
            if before is None:
                break
            found = before
            if not _is_in(found, trusted):
                break
    return _shown(str(found))


@lru_cache(maxsize=4096)  # with each request, mostly of the same
def _shown(text: str) -> str:
    found = _address(text)
    if found is None:
        return text
    if found.version == 6:
        return str(ipaddress.ip_network((found, _IPV6_OF_ONE), strict=False))
    return str(found)


@lru_cache(maxsize=4096)
def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(text.partition("%")[0].strip("[]"))
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def _is_in(address: ipaddress.IPv4Address | ipaddress.IPv6Address, trusted: Sequence[Network]) -> bool:
    return any(address.version == each.version and address in each for each in trusted)
