"""Registries of what has a name and can be added from outside: strategies, codecs, schedules, passes.

Each kind has a `Registry`. edgefl's own entries are registered when their modules are imported; others come from
entry points of installed distributions (https://packaging.python.org/specifications/entry-points/), which are looked
for when a name is asked for that is not known yet, or all names are.
"""

from __future__ import annotations

import difflib
import importlib
import logging
import pkgutil
import re
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Generic, TypeVar

from edgefl.errors import EdgeflError, InvalidSettingError, first_line

__all__ = ["Registry", "import_modules"]

T = TypeVar("T")

_log = logging.getLogger(__name__)
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class Registry(Generic[T]):
    """The entries of one kind, by name.

    An entry point that cannot be used (its module fails to import, its name is taken, it is no such thing) is named in
    one warning of the log and left out; the others work.

    Args:
        kind: what the entries are, in the singular, for messages: ``strategy``.
        group: of the entry points: ``edgefl.strategies``. An entry point's name is the entry's.
        check: raises `EdgeflError` where an entry point's object is no such entry; is called with its name and with it.
        error: what a wrong name is refused with.
    """

    def __init__(
        self,
        kind: str,
        group: str,
        *,
        check: Callable[[str, object], None] = lambda name, entry: None,
        error: type[EdgeflError] = InvalidSettingError,
    ) -> None:
        self.kind = kind
        self.group = group
        self._checks = [check]
        self._error = error
        self._entries: dict[str, T] = {}
        self._searched = False
        self._searching = threading.RLock()

    def register(self, name: str) -> Callable[[T], T]:
        """A decorator that adds an entry; for an entry that is no class or function, call what it returns.

        Args:
            name: lower-case letters, digits, dots, dashes and underscores; at most 64.

        Raises:
            EdgeflError: of the registry's type: the name is no name, or another entry has it.
        """

        def add(entry: T) -> T:
            if not _NAME.fullmatch(name):
                raise self._error(
                    f"A {self.kind}'s name expects 1 to 64 lower-case letters, digits and ._-, got {name!r:.80}."
                )
            if self._entries.setdefault(name, entry) is not entry:
                raise self._error(
                    f"A {self.kind} named {name!r} is registered already.", hint="Give yours another name."
                )
            return entry

        return add

    def require(self, check: Callable[[str, object], None]) -> None:
        """Adds a check of entry points' objects that needs more than the registry's module knows."""
        self._checks.append(check)

    def get(self, name: str) -> T:
        """The entry of a name.

        Raises:
            EdgeflError: of the registry's type: there is none; the hint is the nearest name.
        """
        if name not in self._entries:
            self._search()
        try:
            return self._entries[name]
        except KeyError:
            raise self._error(
                f"Unknown {self.kind} {name!r:.80}, expected one of {', '.join(self.names())}.", hint=self.nearest(name)
            ) from None

    def names(self) -> tuple[str, ...]:
        """All names: edgefl's own in the order in which they were registered, then those of entry points, sorted."""
        self._search()
        return tuple(self._entries)

    def nearest(self, name: str) -> str | None:
        """A hint for somebody who asked for a name that is not there; None where nothing is near."""
        near = difflib.get_close_matches(name.lower()[:80], self.names())
        return f"Did you mean {' or '.join(near)}?" if near else None

    def _search(self) -> None:
        with self._searching:
            if not self._searched:
                # First, since what is imported may ask for names itself.
                self._searched = True
                self._add_entry_points()

    def _add_entry_points(self) -> None:
        # Not needed by a device that only uses edgefl's own, and slow to import.
        from importlib.metadata import EntryPoint, entry_points

        def order(point: EntryPoint) -> tuple[str, str, str]:
            return point.name, point.dist.name if point.dist is not None else "", point.value

        # One distribution may be found twice, through two folders of the path.
        for point in sorted(set(entry_points(group=self.group)), key=order):
            try:
                entry = point.load()
                for check in self._checks:
                    check(point.name, entry)
                self.register(point.name)(entry)
            except Exception as error:
                owner = f" of {point.dist.name}" if point.dist is not None else ""
                told = str(error) if isinstance(error, EdgeflError) else first_line(error)
                _log.warning("The %s %r (%s)%s is left out: %s", self.kind, point.name, point.value, owner, told)


def import_modules(package: ModuleType | str) -> None:
    """Imports every module of a package, so that what they hold registers itself: a new one needs no list.

    Args:
        package: the package or its name.
    """
    found = importlib.import_module(package) if isinstance(package, str) else package
    for module in sorted(each.name for each in pkgutil.iter_modules(found.__path__)):
        importlib.import_module(f"{found.__name__}.{module}")
