"""Waiting for a server that is only just starting: pasted lines follow each other faster than that."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from edgefl.errors import StorageError
from edgefl_server.operator_file import OperatorFile

__all__ = ["operator_of"]

_LONGEST_SECONDS = 20.0
"""A start takes a second or two, on a small or busy machine ten; a wrong folder is waited for in vain for so long."""
_PAUSE_SECONDS = 0.2
_CONNECT_SECONDS = 2.0


def operator_of(
    state: Path, report: Callable[[str], None], sleep: Callable[[float], None] = time.sleep
) -> OperatorFile:
    """Finds the server of a state folder, and its operator's token, once it listens.

    A server listens before it writes the file. One that was stopped has left a file, perhaps with another port, and
    refuses connections until it is there again. Nobody can tell one that is not there from one that is still loading.

    Args:
        state: the server's folder, which may be missing as yet.
        report: told once that there is something to wait for.
        sleep: how to wait.

    Returns:
        What the file says; after twenty seconds also if nothing listens there, which the first request then tells.

    Raises:
        StorageError: after twenty seconds there is no file; or it is damaged.
        InvalidSettingError: its token is none, or can be guessed; or its pin is none.
    """
    waited = 0.0
    while True:
        missing: StorageError | None = None
        try:
            file = OperatorFile.read(state)
        except StorageError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            missing, why = error, error.message.rstrip(".")
        else:
            if not _refuses(file.url):
                return file
            why = f"Nothing listens at {file.url}"
        if waited >= _LONGEST_SECONDS:
            if missing is not None:
                raise missing
            return file
        if waited == 0:
            report(f"{why}; waiting up to {_LONGEST_SECONDS:.0f} s for a server that is starting.")
        sleep(_PAUSE_SECONDS)
        waited += _PAUSE_SECONDS


def _refuses(url: str) -> bool:
    """Whether nothing listens there; what else may be wrong, the first request tells."""
    try:
        parts = urlsplit(url)
        default = 443 if parts.scheme == "https" else 80
        socket.create_connection((parts.hostname, parts.port or default), _CONNECT_SECONDS).close()
    except ConnectionRefusedError:
        return True
    except (OSError, ValueError):
        return False
    return False
