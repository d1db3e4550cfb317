"""Devices that exist twice: a card was cloned, and two machines use one identity."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from edgefl.wire.words import is_random_id

__all__ = ["Doubles"]

_MANY_TURNS = 2
"""One return may be a request that was under way when the device was started again."""
_MOST_INSTANCES = 8
"""Copies of one card that are told apart."""
_WITHIN_SECONDS = 3600.0
_REPEATED_AFTER_SECONDS = 3600.0


@dataclass
class _Seen:
    current: str
    before: tuple[str, ...] = ()
    changed_at: float = 0.0
    returns: int = 0
    told_at: float | None = None


class Doubles:
    """Finds devices of which two processes are alive.

    Every process of a device draws a random instance. One that comes back after another one had taken its place was not
    replaced by it.
    """

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}
        self._lock = threading.Lock()

    def notice(self, device: str, instance: str, now: float) -> bool:
        """Whether it is time to tell that the device exists twice; at most once an hour for each device.

        Args:
            device: authenticated.
            instance: what the request's header `calls.INSTANCE` says; anything but 32 hexadecimal digits counts for
                nothing.
            now: the time.
        """
        if not is_random_id(instance):
            return False
        with self._lock:
            seen = self._seen.get(device)
            if seen is None:
                self._seen[device] = _Seen(instance)
                return False
            if instance == seen.current:
                return False
            recent = now - seen.changed_at <= _WITHIN_SECONDS
            seen.returns = seen.returns + 1 if recent and instance in seen.before else 0
            others = tuple(each for each in seen.before if each != instance)
            seen.before = (*others, seen.current)[-_MOST_INSTANCES:]
            seen.current, seen.changed_at = instance, now
            if seen.returns < _MANY_TURNS:
                return False
            if seen.told_at is not None and now - seen.told_at < _REPEATED_AFTER_SECONDS:
                return False
            seen.told_at = now
            return True
