"""HTTP/1.1 of one connection: uvicorn's, with a bound on whatever a silent or slow client could stretch."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from edgefl.wire.messages import CONTROL_TYPE
from edgefl.wire.refusals import Refusal
from edgefl_server.http.connections import Place
from edgefl_server.http.errors import error_body
from edgefl_server.log_lines import Repeats

__all__ = ["MAX_HEADER_BYTES", "Protocol"]

MAX_HEADER_BYTES = 16 << 10
"""The most bytes of a whole header, or of one line of a chunked body."""
_HEADER_SECONDS = 20.0
"""The seconds from the connection, or from a request's first byte, to the end of the header."""
_UNWANTED_BODY_SECONDS = 60.0
"""The rest of a body that was answered before its end is read and dropped for so long: most clients read an answer
only when they have sent all."""
_UNREAD_ANSWER_SECONDS = 60.0
"""A client that takes nothing of an answer for so long does not want it."""
_GOODBYE_SECONDS = 2.0
"""A TLS connection ends when the client has said goodbye, too; a stop waits so long for those that do not read."""
_READ_AT_ONCE = 64 << 10
"""asyncio reads four times as much, which would be memory for each of many uploads."""
_MOST_AHEAD = 16 << 10
"""The bytes of a body that the application has not asked for yet."""
_MOST_PIPELINED = 4
"""A client that has sent its next request before the answer so many times does not wait for answers at all; ours never
do so."""

_log = logging.getLogger(__name__)
# What clients do wrong is answered and not logged: a stranger could fill the disk with it.
_log.setLevel(logging.ERROR)
# Nor is a request that was still under way when the server had waited long enough for it to stop.
_log.addFilter(lambda record: not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError)))
_repeats = Repeats(logging.getLogger("edgefl_server.http"))


def _is_news(record: logging.LogRecord) -> bool:
    """A fault of this server that a request shows, it can show again and again."""
    if not record.exc_info or record.exc_info[1] is None:
        return True
    error, where = record.exc_info[1], record.exc_info[2]
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    place = f"{where.tb_frame.f_code.co_filename}:{where.tb_lineno}" if where is not None else "?"
    return _repeats.first(f"{type(error).__name__} in {place}")


_log.addFilter(_is_news)


class Protocol(H11Protocol):
    """The protocol of one connection.

    Args:
        config: uvicorn's.
        server_state: uvicorn's.
        app_state: of the lifespan.
        place: among all connections.
        header_seconds: see `_HEADER_SECONDS`.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        place: Place,
        *,
        header_seconds: float = _HEADER_SECONDS,
    ) -> None:
        super().__init__(config, server_state, {**app_state, "place": place})
        self.logger = _log
        self._place = place
        self._header_seconds = header_seconds
        self._latest: object = None
        self._pipelined = 0
        self._header_timer: asyncio.TimerHandle | None = None
        self._drop_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._goodbye_timer: asyncio.TimerHandle | None = None
        self._stopping = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._place.close = transport.abort
        if hasattr(transport, "max_size"):
            transport.max_size = _READ_AT_ONCE
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._place.leave()
        for timer in (self._header_timer, self._drop_timer, self._write_timer, self._goodbye_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete and len(self.cycle.body) > _MOST_AHEAD:
            self.flow.pause_reading()
        self._watch()

    def on_response_complete(self) -> None:
        """Called when the application has answered."""
        pipelined = self.conn.their_state is h11.DONE and self.conn.trailing_data[0]
        self._pipelined = self._pipelined + 1 if pipelined else 0
        if self._pipelined > _MOST_PIPELINED:
            self.transport.close()
        super().on_response_complete()
        self._watch()
        if self._stopping and self.transport.is_closing():
            self._goodbye_timer = self.loop.call_later(_GOODBYE_SECONDS, self._end)

    def shutdown(self) -> None:
        """Called when the server stops: ends the connection at once, or after the answer to a request under way."""
        self._stopping = True
        if self.cycle is not None and not self.cycle.response_complete:
            super().shutdown()
        else:
            self._end()

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP request, and ends the connection."""
        # Called where the error is handled.
        status = 431 if getattr(sys.exc_info()[1], "error_status_hint", 400) == 431 else 400
        if self.cycle is not None and not self.cycle.response_complete:
            # The application learns that nobody is there; what it still says goes nowhere.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            code = Refusal.TOO_LARGE if status == 431 else Refusal.MALFORMED
            body = json.dumps(error_body(code, f"{msg} A header has at most {MAX_HEADER_BYTES} bytes.")).encode()
            headers = [
                ("Content-Type", CONTROL_TYPE),
                ("Content-Length", str(len(body))),
                ("Connection", "close"),
            ]
            for event in (h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(_UNREAD_ANSWER_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        if self._write_timer is not None:
            self._write_timer.cancel()
        super().resume_writing()

    def _unsupported_upgrade_warning(self) -> None:
        pass  # the request is answered as if it had not asked

    def _end(self) -> None:
        """Ends an answered connection without a goodbye; one that still takes its answer gets the time for it."""
        if self.transport.get_write_buffer_size() == 0:
            self.transport.abort()
            return
        if not self.transport.is_closing():
            self.transport.close()
        self._goodbye_timer = self.loop.call_later(_GOODBYE_SECONDS, self._end)

    def _watch(self) -> None:
        """Sets the timers as the connection now stands."""
        if self.transport.is_closing():
            return
        answered = self.cycle is None or self.cycle.response_complete
        dropping = answered and self.cycle is not None and self.conn.their_state is h11.SEND_BODY
        if self.cycle is not None:
            self._place.whole = self.conn.their_state is not h11.SEND_BODY
        if self.cycle is not self._latest:
            self._latest = self.cycle
            self._place.ask()
        if not answered or dropping:
            if self._header_timer is not None:
                self._header_timer.cancel()
                self._header_timer = None
        elif self._place.last:
            self.transport.close()
            return
        else:
            self._place.rest()
        if dropping and self._drop_timer is None:
            self._drop_timer = self.loop.call_later(_UNWANTED_BODY_SECONDS, self.transport.abort)
        elif not dropping and self._drop_timer is not None:
            self._drop_timer.cancel()
            self._drop_timer = None
        # Between two requests uvicorn's own timer runs, until the first byte of the next.
        waiting = answered and not dropping and self.timeout_keep_alive_task is None
        if waiting and self._header_timer is None:
            self._header_timer = self.loop.call_later(self._header_seconds, self.transport.abort)
