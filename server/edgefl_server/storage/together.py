"""Threads that wait for the disk together: one of them does for all what each would have to wait for alone.

Databases call it group commit (DeWitt et al. 1984, "Implementation techniques for main memory database systems").
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["NotBegunError", "Together"]

_Wanted = TypeVar("_Wanted")
_Result = TypeVar("_Result")


@dataclass(eq=False)
class _Wish(Generic[_Wanted, _Result]):
    """One thread's part: what it wants, and what came of it once it is called, unless it is to lead."""

    wanted: _Wanted
    called: threading.Event = field(default_factory=threading.Event)
    leads: bool = False
    results: list[_Result] = field(default_factory=list)
    error: BaseException | None = None


class NotBegunError(Exception):
    """It was not begun in time, and will not be done."""


class Together(Generic[_Wanted, _Result]):
    """Does what threads want, of all that came while the last was done at once, in the order in which they came.

    Who comes first waits for nobody: it does it. Of those that came meanwhile the first one does it for all of them.

    Args:
        do: is given a function to be called once all is ready, which says what is wanted; from that to a result or an
            error for each. What it raises after that call all of them raise, and before it, its thread alone.
        most: at once; the first waits for the last.
    """

    def __init__(
        self, do: Callable[[Callable[[], Sequence[_Wanted]]], Sequence[_Result | Exception]], most: int
    ) -> None:
        self._do, self._most = do, most
        self._guard = threading.Lock()
        self._waiting: deque[_Wish[_Wanted, _Result]] = deque()
        self._led = False

    def __call__(self, wanted: _Wanted, seconds: float | None = None) -> _Result:
        """Returns once it is done, with the result of this one, or raises its error.

        Args:
            wanted: by this thread.
            seconds: to wait until it is begun; None: however long that takes.

        Raises:
            NotBegunError: it took longer.
        """
        mine: _Wish[_Wanted, _Result] = _Wish(wanted)
        with self._guard:
            self._waiting.append(mine)
            mine.leads, self._led = not self._led, True
        if not mine.leads and not mine.called.wait(seconds):
            with self._guard:
                if not mine.leads and mine in self._waiting:
                    self._waiting.remove(mine)
                    raise NotBegunError
            mine.called.wait()
        if mine.leads:
            self._lead()
        if mine.error is not None:
            raise mine.error
        return mine.results[0]

    def _lead(self) -> None:
        """Does the first of what is wanted, the leader's own before all, and calls the next leader."""
        batch: list[_Wish[_Wanted, _Result]] = []

        def take(most: int = self._most) -> list[_Wanted]:
            with self._guard:
                batch.extend(self._waiting.popleft() for _ in range(min(most, len(self._waiting))))
            return [each.wanted for each in batch]

        try:
            for each, result in zip(batch, self._do(take), strict=True):
                if isinstance(result, Exception):
                    each.error = result
                else:
                    each.results.append(result)
        except BaseException as error:
            if not batch:
                take(1)
            for each in batch:
                each.error = error
        finally:
            with self._guard:
                following = self._waiting[0] if self._waiting else None
                self._led = following is not None
                if following is not None:
                    following.leads = True
            if following is not None:
                following.called.set()
            for each in batch[1:]:
                each.called.set()
