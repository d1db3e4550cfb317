"""Models that are on their way through the interpreter for the first time, since a damaged one can end the process.

The same task would come again at the next start. So it is on the disk before a model is loaded and before its first
step, and off it afterwards, that this was tried. A power cut at that moment looks the same: hence the second attempt.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edgefl.atomic import read_bytes, write_text
from edgefl.errors import RuntimeFailure, StorageError
from edgefl.version import __version__

__all__ = ["Trials"]

_ATTEMPTS = 2
_SECONDS = 86400.0
"""After a day a model is tried again: what ended the process may have been something else that is over by now."""
_KEPT = 32
"""Models that are remembered; those tried for longest ago are forgotten first."""


class Trials:
    """Notes on the disk what is being tried.

    Args:
        path: of the file, which is there only as long as there is something to be noted.
        now: the time, on the clock of the wall.
    """

    def __init__(self, path: Path, now: Callable[[], float] = time.time) -> None:
        self._path = path
        self._now = now
        self._survived: set[str] = set()

    @contextlib.contextmanager
    def trial(self, what: str, model_hash: str) -> Iterator[Callable[[], None]]:
        """Guards a block that may end the process; costs nothing once the process has lived through it.

        Args:
            what: is done with the model: ``load`` or ``run``.
            model_hash: of its file.

        Yields:
            A function to call as soon as the danger is over, at the latest at the end of the block.

        Raises:
            RuntimeFailure: the process ended the last times that this was tried.
        """
        key = f"{what} {model_hash}"
        if key not in self._survived:
            self._begin(key, what, model_hash)
        try:
            yield lambda: self._end(key)
        finally:
            self._end(key)

    def _begin(self, key: str, what: str, model_hash: str) -> None:
        noted = self._read()
        attempts = noted.pop(key, {"attempts": 0})["attempts"]
        if attempts >= _ATTEMPTS:
            raise RuntimeFailure(
                f"The last attempts to {what} the model {model_hash[:12]}… ended the process, so it is left alone.",
                hint="It is tried again after a day, or with another edgefl. Tell the operator.",
            )
        # The newest last: the oldest are forgotten first.
        self._write({**noted, key: {"attempts": attempts + 1, "at": round(self._now())}}, durable=True)

    def _end(self, key: str) -> None:
        if key in self._survived:
            return
        self._survived.add(key)
        noted = self._read()
        if noted.pop(key, None) is not None:
            self._write(noted, durable=False)  # at worst, the next start believes in an attempt too many

    def _read(self) -> dict[str, dict[str, Any]]:
        """Reads what was tried within a day by this version; on a clock that was set back, too."""
        try:
            document = json.loads(read_bytes(self._path).decode())
            if document["edgefl"] != __version__:
                return {}
            return {
                str(key): {"attempts": int(entry["attempts"]), "at": float(entry["at"])}
                for key, entry in document["tried"].items()
                if abs(self._now() - entry["at"]) < _SECONDS
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
            return {}

    def _write(self, noted: dict[str, dict[str, Any]], *, durable: bool) -> None:
        document = {"edgefl": __version__, "tried": dict(list(noted.items())[-_KEPT:])}
        with contextlib.suppress(StorageError, OSError):  # a full disk keeps nobody from training
            if noted:
                write_text(self._path, json.dumps(document), durable=durable, mode=0o600)
            else:
                self._path.unlink(missing_ok=True)
