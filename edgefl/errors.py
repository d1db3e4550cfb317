"""Every error that edgefl raises on purpose, each with a documented exit code (docs/errors.md)."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Sequence

__all__ = [
    "AuthenticationError",
    "CodecError",
    "DataError",
    "DataNotReadyError",
    "EdgeflError",
    "FormatVersionError",
    "HashMismatchError",
    "InsecureListenError",
    "InvalidSettingError",
    "ListenError",
    "MemoryShortageError",
    "MessageError",
    "MissingDependencyError",
    "ModelError",
    "ModelFileError",
    "OutcomeRefusedError",
    "ProtocolError",
    "RunError",
    "RuntimeFailure",
    "ServerUnavailableError",
    "StorageError",
    "UnsupportedModelError",
    "VerificationError",
    "first_line",
    "listed",
    "storage_error",
]


class EdgeflError(Exception):
    """Base of all errors that have a cause a user can act on.

    Args:
        message: one line: what was expected and what was got.
        hint: one line: what to do about it.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        message = _sentence(message)
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message} {self.hint}"


class MissingDependencyError(EdgeflError):
    """A verb needs packages that are not installed; the hint is the line that installs them."""

    exit_code = 3


class InvalidSettingError(EdgeflError):
    """An option or argument has a value outside its range or names something that does not exist."""

    exit_code = 4


class ModelError(EdgeflError):
    """A model that cannot be trained: it is not one of Keras, is not compiled, or its loss does not fit.

    Args:
        message: one line, what was expected and what was got.
        hint: what to do about it.
        layer: name of the Keras layer that is to blame, where it is known.
    """

    exit_code = 10

    def __init__(self, message: str, *, hint: str | None = None, layer: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.layer = layer


class UnsupportedModelError(ModelError):
    """The model holds a layer or operation that cannot be expressed in builtin TFLite ops.

    Args:
        message: one line, what was expected and what was got.
        hint: what to do about it.
        layer: name of the Keras layer that is to blame, where it is known.
        ops: types of the TensorFlow ops that cannot be expressed, where they are known.
    """

    exit_code = 11

    def __init__(
        self, message: str, *, hint: str | None = None, layer: str | None = None, ops: Sequence[str] = ()
    ) -> None:
        super().__init__(message, hint=hint, layer=layer)
        self.ops = tuple(ops)


class VerificationError(EdgeflError):
    """The converted model does not compute what Keras computes.

    Args:
        message: one line, what differs.
        hint: what to do about it.
        layer: name of the Keras layer to look at, where it is known.
    """

    exit_code = 12

    def __init__(self, message: str, *, hint: str | None = None, layer: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.layer = layer


class MemoryShortageError(EdgeflError):
    """A machine with too little memory for what it is to do, noticed before that begins."""

    exit_code = 13


class ModelFileError(EdgeflError):
    """A file is not an edgefl model: no TFLite file, no manifest, corrupted."""

    exit_code = 20


class FormatVersionError(EdgeflError):
    """A file or message was written by another edgefl, which this one does not understand."""

    exit_code = 21


class DataError(EdgeflError):
    """Data whose shapes, types or values do not fit the model, or a source that cannot be read."""

    exit_code = 22


class DataNotReadyError(DataError):
    """Data that is not there or not whole for the moment: it is being replaced, or was written to while it was read."""

    exit_code = 26


class CodecError(EdgeflError):
    """A payload that its codec cannot decode, or a codec that is not known."""

    exit_code = 23


class HashMismatchError(EdgeflError):
    """Content whose SHA-256 is not the one it was asked for by."""

    exit_code = 24


class RuntimeFailure(EdgeflError):  # noqa: N818 - "RuntimeError" is Python's own
    """The TFLite interpreter is missing, refuses the model, or fails while running it."""

    exit_code = 25


class MessageError(EdgeflError):
    """Bytes that are not a message of the protocol."""

    exit_code = 30


class OutcomeRefusedError(EdgeflError):
    """The server does not accept an outcome.

    Args:
        reason: a code of docs/protocol.md, for example ``not_finite``.
        message: expected and got.
        hint: what the device's owner can do.
    """

    exit_code = 31

    def __init__(self, reason: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class ServerUnavailableError(EdgeflError):
    """The server did not answer, after retries."""

    exit_code = 40


class AuthenticationError(EdgeflError):
    """A token, secret or certificate that the other side does not accept."""

    exit_code = 41


class ProtocolError(EdgeflError):
    """The server answered something that the protocol does not allow."""

    exit_code = 42


class ListenError(EdgeflError):
    """The server cannot listen on the address: the port is in use, or the address is not this machine's."""

    exit_code = 50


class InsecureListenError(EdgeflError):
    """The server was asked to listen beyond this machine without TLS."""

    exit_code = 51


class StorageError(EdgeflError):
    """A file cannot be written or read: disk full, no permission, damaged state.

    Args:
        message: what could not be done, and why.
        hint: what to do.
        full: there is no space: freeing some mends it.
    """

    exit_code = 52

    def __init__(self, message: str, *, hint: str | None = None, full: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.full = full


class RunError(EdgeflError):
    """A run that does not exist, or is not in a state that allows what was asked."""

    exit_code = 53


_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_WHERE = re.compile(r"\{\{function_node [^}]*\}\}:? ?| \[Op:\w+\].*$")
_NODE = re.compile(r"'\{\{node ([^}]*)\}\} = .*$")
_FRAMING = re.compile(
    r"^(Exception encountered when calling|in user code|File \"|Call arguments received|Arguments received)"
)
"""The beginnings of lines that Keras and TensorFlow put around a cause."""
_LONGEST = 300

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_STORAGE_HINTS = {
    errno.ENOSPC: "Free some space on that disk and try again; nothing was left half-written.",
    errno.EDQUOT: "The disk quota is used up; free some space and try again; nothing was left half-written.",
    errno.EFBIG: "The file system, or a limit of this process (ulimit -f), allows no larger file.",
    errno.EACCES: "Check who owns the folder, or choose another one.",
    errno.EPERM: "Check who owns the folder, or choose another one.",
    errno.EROFS: "The file system is mounted read-only; choose another folder.",
}


def storage_error(error: OSError, action: str, path: object) -> StorageError:
    """Turns an ``OSError`` into one clear line that says what was being done to which path."""
    hint = _STORAGE_HINTS.get(error.errno or 0, "Check the path and try again.")
    full = error.errno in _NO_SPACE
    return StorageError(f"Could not {action} {path}: {error.strerror or error}.", hint=hint, full=full)


def _sentence(text: str) -> str:
    """A text with one full stop at its end, whatever the one that it quotes last ended with."""
    bare = text.rstrip()
    if bare.endswith("..") and not bare.endswith("..."):
        return bare[:-1]
    return text if not bare or bare[-1] in ".:!?…" else f"{bare}."


def listed(names: Iterable[str], most: int = 8, separator: str = ", ") -> str:
    """Names for a message, cut where there are many; ``none`` where there is none."""
    every = list(names)
    shown = every if len(every) <= most + 1 else every[:most]
    more = f" and {len(every) - len(shown)} more" if len(shown) < len(every) else ""
    return f"{separator.join(shown)}{more}" or "none"


def first_line(error: BaseException) -> str:
    """The first line of what an error of any library says that tells the cause, to stand in an error of one line.

    Keras wraps the cause into lines that tell where, and colours them; TensorFlow puts the names of functions and
    kernels around it. Longer lines are cut.

    Args:
        error: whatever was raised.

    Returns:
        The line, without spaces around it; the name of the error's type where it says nothing.
    """
    lines = [_NODE.sub(r"'\1'", _WHERE.sub("", line)).strip() for line in _COLOUR.sub("", str(error)).splitlines()]
    telling = [line for line in lines if line and not _FRAMING.match(line)]
    return telling[0][:_LONGEST] if telling else type(error).__name__
