"""SIGTERM and Ctrl-C end a device from wherever it is, also from within an import or a binding that swallows them."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType

__all__ = ["Stop", "StopSignals"]

_AGAIN_SECONDS = 0.2
"""Long enough to unwind in, short enough that nobody notices a `Stop` that was swallowed."""


class Stop(BaseException):
    """SIGTERM or SIGINT. No ``Exception``, so that nobody on the way takes it for a failure of theirs."""


class StopSignals:
    """Raises `Stop` within the ``with`` block when the process is told to stop, until the block is left.

    Everything on disk is safe against a kill at any moment, so it is safe to leave from anywhere; but the exception may
    come up where it cannot get out: in the middle of an import, in a callback, in a binding that makes an error of its
    own of it. So it is raised again until it does. After the block, both signals do nothing: the process is ending.

    Attributes:
        asked: whether the process was told to stop.
    """

    def __init__(self) -> None:
        self.asked = False
        self._left = False

    def __enter__(self) -> StopSignals:
        signal.signal(signal.SIGALRM, self._again)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._left = True
        signal.setitimer(signal.ITIMER_REAL, 0)

    def check(self) -> None:
        """Does nothing as long as the process may go on.

        Raises:
            Stop: it may not.
        """
        if self.asked:
            raise Stop

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._left or self.asked:
            return
        self.asked = True
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS, _AGAIN_SECONDS)
        raise Stop

    def _again(self, number: int, frame: FrameType | None) -> None:
        if not self._left:
            raise Stop
