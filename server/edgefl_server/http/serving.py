"""Listening: the socket, TLS, and a stop that lets requests finish."""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import logging
import signal
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from edgefl.certificates import pins_of, pins_to_header
from edgefl.errors import InsecureListenError, InvalidSettingError, ListenError, StorageError, storage_error
from edgefl_server.http.connections import Acceptor, Connections, Place, most_connections, raise_file_limit
from edgefl_server.http.protocol import MAX_HEADER_BYTES, Protocol

__all__ = ["Address", "listen", "serve"]

_M_MMAP_THRESHOLD = -3
"""The numbers of malloc.h."""
_BACKLOG = 1024
"""Connections that wait to be accepted."""
_STOP_SECONDS = 10
"""Requests that are under way when the server is told to stop get so long."""

_KEEP_ALIVE_SECONDS = 75
"""Longer than a device waits between two polls, so that it need not connect each time."""

# Nothing is lost by a request that the stop cut off, and whoever stops the server can do nothing about it.
logging.getLogger("uvicorn.error").addFilter(lambda record: "graceful shutdown exceeded" not in str(record.msg))


@dataclass(frozen=True)
class Address:
    """The address at which a server listens.

    Attributes:
        host: a name or address of this machine.
        port: 0 for a free one.
        certificate: PEM file; with `private_key` the server speaks TLS.
        private_key: PEM file.
        insecure: listen beyond this machine without TLS.
        next_certificate: PEM file of the certificate that the server is going to have; devices are told beforehand.
    """

    host: str
    port: int
    certificate: Path | None = None
    private_key: Path | None = None
    insecure: bool = False
    next_certificate: Path | None = None

    def check(self) -> None:
        """Refuses what would send secrets in the clear.

        Raises:
            InsecureListenError: other machines can reach the address and there is no TLS.
            InvalidSettingError: a certificate without its key, or files that are not a pair of them.
            ListenError: the host has no address.
        """
        if self.next_certificate is not None and self.certificate is None:
            raise InvalidSettingError("--next-certificate expects --certificate beside it, got none.")
        if (self.certificate is None) != (self.private_key is None):
            raise InvalidSettingError("TLS expects both --certificate and --private-key, got one of them.")
        if self.certificate is not None and self.private_key is not None:
            try:
                ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(self.certificate, self.private_key)
            except ssl.SSLError as error:
                raise InvalidSettingError(
                    f"{self.certificate} and {self.private_key} are not a certificate and its key in PEM"
                    + (f": {error.reason}." if error.reason else "."),
                    hint="--certificate expects the file with BEGIN CERTIFICATE in it, --private-key the other one.",
                ) from error
            except OSError as error:
                raise storage_error(error, "read", f"{self.certificate} or {self.private_key}") from error
        elif not self.insecure and not all(map(_is_loopback, self._resolve())):
            raise InsecureListenError(
                f"Listening on {self.host} without TLS would send tokens and updates in the clear.",
                hint="Give --certificate and --private-key, or listen on 127.0.0.1; "
                "on a network that you trust, say --insecure.",
            )

    def url(self, port: int) -> str:
        """The address as this machine reaches it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self.host, self.host)  # noqa: S104
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self.certificate else 'http'}://{shown}:{port}"

    def pins(self) -> tuple[str | None, str | None]:
        """The pins of the certificate and of its key, by which a device knows the server; None without TLS.

        Raises:
            StorageError: the certificate cannot be read.
        """
        return _pins_in(self.certificate)

    def next_pins(self) -> tuple[str | None, str | None]:
        """The same of the certificate to come; see `pins`."""
        return _pins_in(self.next_certificate)

    def announcement(self) -> str:
        """All of them as devices are told; empty without TLS."""
        return pins_to_header(each for each in (self.pins(), self.next_pins()) if each[0] is not None)

    def _resolve(self) -> list[str]:
        try:
            found = socket.getaddrinfo(self.host or None, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except (OSError, UnicodeError) as error:
            raise ListenError(f"The host {self.host!r} has no address on this machine: {error}.") from error
        return [str(each[4][0]) for each in found]


def _pins_in(file: Path | None) -> tuple[str | None, str | None]:
    if file is None:
        return None, None
    try:
        text = file.read_text()
    except OSError as error:
        raise storage_error(error, "read", file) from error
    start = text.find("-----BEGIN CERTIFICATE-----")
    end = text.find("-----END CERTIFICATE-----", start)
    if start < 0 or end < 0:
        raise StorageError(f"{file} holds no certificate in PEM.")
    return pins_of(ssl.PEM_cert_to_DER_cert(text[start : end + len("-----END CERTIFICATE-----")]))


def listen(address: Address) -> socket.socket:
    """Binds and listens, so that a port in use is one clear line.

    Raises:
        ListenError: the port is in use or forbidden, or the address is not this machine's.
    """
    host = address.host or "0.0.0.0"  # noqa: S104
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Said in so many words, as asyncio sends small answers at once (TCP_NODELAY) only on what it knows to be TCP.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # Lets a restarted server take its port back at once; two live ones still cannot share it.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, address.port))
        listener.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ListenError(
            f"Cannot listen on {host} port {address.port}: {reason}.",
            hint="Stop what uses the port, choose another --port, or --port 0 for a free one.",
        ) from error
    return listener


class _Server(uvicorn.Server):
    """uvicorn with a bound on connections, a word when it is ready, and one when it is told to stop."""

    def __init__(
        self,
        config: uvicorn.Config,
        listener: socket.socket,
        max_connections: int,
        ready: Callable[[], None],
        stopping: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._listener, self._max_connections = listener, max_connections
        self._ready, self._stopping = ready, stopping
        self._acceptor: Acceptor | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            connections = Connections(self._max_connections)
            self._acceptor = Acceptor(self._listener, connections, self._protocol, self.config.ssl)
            self._acceptor.start()
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._acceptor is not None:
            self._acceptor.close()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Devices that wait for work must not hold up the stop.
        self._stopping()
        super().handle_exit(sig, frame)

    def _protocol(self, place: Place) -> Protocol:
        return Protocol(self.config, self.server_state, self.lifespan.state, place)


def serve(
    app: FastAPI, address: Address, listener: socket.socket, ready: Callable[[], None], max_connections: int = 0
) -> None:
    """Serves until SIGTERM or SIGINT; then lets requests finish and returns.

    Args:
        app: what answers.
        address: with or without TLS.
        listener: see `listen`.
        ready: called once connections are accepted.
        max_connections: more are turned away; 0: as many as this process may open files for.
    """
    files = raise_file_limit()
    with contextlib.suppress(AttributeError, OSError):  # another C library has no mallopt, and no need of it
        # Without it glibc keeps what freed messages leave between smaller things: 202 instead of 146 MB after 300.
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 17)
    config = uvicorn.Config(
        app,
        loop="asyncio",
        ws="none",
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        lifespan="on",
        log_config=None,  # its lines go where ours go, and are made like them
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # `client_address` knows which to believe
        timeout_graceful_shutdown=_STOP_SECONDS,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        ssl_certfile=address.certificate,
        ssl_keyfile=address.private_key,
    )
    # uvicorn raises a signal again once it has stopped; a stop that was asked for is no failure.
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    most = max_connections or most_connections(files)
    try:
        # No sockets for uvicorn: connections are accepted here.
        _Server(config, listener, most, ready, app.state.context.work.stop).run(sockets=[])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback
