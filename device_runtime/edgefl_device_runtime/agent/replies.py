"""Whether an answer is the server's. Captive portals, proxies and load balancers answer too: they end nothing here.

The table is in docs/protocol.md. An answer that does not show whose it is means *not reached*, whatever its status.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from edgefl.errors import ProtocolError, ServerUnavailableError
from edgefl.wire.calls import ACTIVE_RUNS, ENDED_RUNS
from edgefl.wire.messages import CONTROL_TYPE
from edgefl.wire.refusals import Refusal

__all__ = ["GONE", "AbandonedError", "NotReachedError", "Reply", "UnexpectedReplyError", "judged", "plain"]

GONE = (403, 404, 410)
"""Statuses of the server's that say that it no longer wants something."""

_NEVER_FINAL = frozenset({408, 425, 429})
_LONGEST_TEXT = 300
_COUNT = re.compile("[0-9]{1,9}")


def plain(text: str, longest: int = _LONGEST_TEXT) -> str:
    """A text from outside so that it can be printed: nothing that controls a terminal or begins a line, and short."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text[:longest])
    return shown + ("…" if len(text) > longest else "")


@dataclass(frozen=True)
class Reply:
    """An answer, by whomever."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @cached_property
    def document(self) -> Mapping[str, Any]:
        """The body as a JSON object of an edgefl server; empty when it is none."""
        if self.content_type != CONTROL_TYPE:
            return {}
        try:
            document = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}  # then it does not show whose it is, which is for `judged` to say
        return document if isinstance(document, dict) else {}

    @property
    def content_type(self) -> str:
        """The content type, without parameters."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    @property
    def code(self) -> str:
        """The machine-readable code of an error of the server's; empty when it is none."""
        return plain(self._error("code"))

    @property
    def message(self) -> str:
        """The server's words for people; its status when it says nothing."""
        return plain(self._error("message")) or f"The server answered with HTTP status {self.status}."

    @property
    def hint(self) -> str | None:
        """The server's advice."""
        return plain(self._error("hint")) or None

    @property
    def retry_after(self) -> float | None:
        """Seconds after which the server wants to hear from this device again."""
        return _seconds(self.headers.get("Retry-After", ""))

    @property
    def active_runs(self) -> int | None:
        """The number of runs that the population has."""
        return self.count(ACTIVE_RUNS)

    @property
    def lease_seconds(self) -> float | None:
        """The seconds for which a lease lasts."""
        seconds = self.document.get("lease_seconds")
        if isinstance(seconds, (int, float)) and not isinstance(seconds, bool):
            return float(seconds) if 0 < seconds < 1e9 else None
        return None

    def count(self, header: str) -> int | None:
        """A header that is a whole number."""
        text = self.headers.get(header, "")
        return int(text) if _COUNT.fullmatch(text) else None

    def ended_runs(self, asked: Iterable[str]) -> list[str]:
        """The runs that are over, of those that were asked about."""
        named = {name.strip() for name in self.headers.get(ENDED_RUNS, "").split(",")}
        return [run for run in asked if run in named]

    @property
    def has_end(self) -> bool:
        """Whether one can tell where the body ends; else it may have been cut off anywhere."""
        chunked = self.headers.get("Transfer-Encoding", "").strip().lower().endswith("chunked")
        return chunked or self.count("Content-Length") is not None

    def is_content(self, content_hash: str) -> bool:
        """Whether it is a download of this content."""
        return self.headers.get("ETag", "").removeprefix("W/") == f'"{content_hash}"'

    def starts_at(self, start: int) -> bool:
        """Whether a part of a download begins where it should."""
        return re.match(f"bytes {start}-[0-9]", self.headers.get("Content-Range", "")) is not None

    def _error(self, key: str) -> str:
        error = self.document.get("error")
        value = error.get(key) if isinstance(error, dict) else None
        return value if isinstance(value, str) else ""


class AbandonedError(Exception):
    """The server no longer wants the task in hand."""


class UnexpectedReplyError(ProtocolError):
    """The server, and nobody else, answered something else than what was asked for."""

    def __init__(self, reply: Reply, asked: str) -> None:
        super().__init__(f"{asked}: {reply.message}", hint=reply.hint)
        self.reply = reply


class NotReachedError(ServerUnavailableError):
    """An attempt that did not reach the server.

    Args:
        kind: what it looks like, in a word: each is told once while the server is away.
        message: the same in a sentence.
        retry_after: what was said about when to come back.
        progress: whether something arrived all the same.
    """

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        hint: str | None = None,
        retry_after: float | None = None,
        progress: bool = False,
    ) -> None:
        super().__init__(message, hint=hint)
        self.kind = kind
        self.retry_after = retry_after
        self.progress = progress


def judged(reply: Reply, server: str, shows: Callable[[Reply], bool]) -> Reply:
    """Returns an answer that is the server's.

    Args:
        reply: what was answered.
        server: URL, for the message.
        shows: whether an answer of status 2xx is of the kind that only the server gives.

    Raises:
        NotReachedError: it is not the server's, or it is, and asks for patience.
    """
    if reply.status < 500 and reply.status not in _NEVER_FINAL:
        if reply.status >= 400 and reply.code:
            return reply
        if 200 <= reply.status < 300 and shows(reply):
            return reply
    # When to come back is the server's to say: a portal could send a device away for a year.
    raise NotReachedError(*_look(reply, server), retry_after=reply.retry_after if reply.code else None)


def _look(reply: Reply, server: str) -> tuple[str, str]:
    """Says what an answer looks like that counts as none: in a word, and in a sentence."""
    status = reply.status
    if reply.code == Refusal.STORAGE_FULL:
        return Refusal.STORAGE_FULL, f"{server} says that its disk is full (HTTP status {status})."
    if reply.code and status == 429:
        return f"error {reply.code}", f"{server} asks for patience: {reply.message}"
    if reply.code and status >= 400:
        return f"error {reply.code}", f"{server} asks for patience (HTTP status {status}, {reply.code})."
    page = _page(reply)
    location = plain(reply.headers.get("Location", ""))
    if 300 <= status < 400 or status == 511:
        where = f" to {location}" if location else ""
        return (
            f"portal {status}",
            f"Somebody else answers for {server}: {page}, status {status}{where}; a captive portal or proxy, as in "
            f"hotels. Does this network ask for a login?",
        )
    if status == 407:
        return "proxy 407", f"A proxy on the way to {server} asks for a password ({page}, status 407)."
    if status in (502, 503, 504):
        return f"status {status}", f"{server} is away behind a proxy or load balancer ({page}, status {status})."
    if status == 507:
        return "status 507", f"What answers for {server} says that a disk is full ({page}, status 507)."
    return (
        f"status {status} {page}",
        f"What answers for {server} is no edgefl server: {page}, status {status}; a captive portal, proxy or load "
        f"balancer?",
    )


def _page(reply: Reply) -> str:
    kind = reply.content_type
    if kind == "text/html":
        return "a page of HTML"
    if kind.endswith("json"):
        return "JSON of another kind"
    return "another kind of answer" if kind or reply.body else "an empty answer"


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None  # a date, which HTTP allows there, or nonsense: no advice to follow
    return seconds if 0 <= seconds < float("inf") else None
