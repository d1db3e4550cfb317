"""``python -m edgefl`` and the command ``edgefl``."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Runs the command line; while it is still being imported, Ctrl-C ends the process without a word."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as a shell leaves it to what runs in the background
        signal.signal(signal.SIGINT, _leave)
    from edgefl.cli.main import main as run

    run()


def _leave(number: int, frame: FrameType | None) -> None:
    # An exception would come out of whatever is being imported, as that sees fit. Nothing has been begun.
    os._exit(130)


if __name__ == "__main__":
    main()
