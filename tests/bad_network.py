"""A TCP proxy that is slow, and cuts connections as bad networks do."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

__all__ = ["BadNetwork"]


class BadNetwork:
    """Listens on 127.0.0.1 and passes everything on, upwards no faster than a rate for each.

    The proxy's buffers are small, so that a device sees the slowness: what it has handed over is on its way.

    Args:
        upstream: the server's port.
        rate: bytes a second up each connection; 0: as fast as it goes.
        cut_every: seconds after which every open connection is reset; 0: never.

    Attributes:
        port: its own.
        up: bytes that devices sent, as they arrived here.
        cuts: how often connections were reset.
        connections: how many were made.
    """

    def __init__(self, upstream: int, *, rate: float = 0.0, cut_every: float = 0.0) -> None:
        self.upstream = upstream
        self.rate = rate
        self.up = 0
        self.cuts = 0
        self.connections = 0
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        if cut_every:
            self._threads.append(threading.Thread(target=self._cut, args=(cut_every,), daemon=True))
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._ended.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.reset()
        for thread in self._threads:
            thread.join()

    def reset(self) -> None:
        """Cuts every connection that is open."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _cut(self, pause: float) -> None:
        while not self._ended.wait(pause):
            self.cuts += bool(self._pairs)
            self.reset()

    def _accept(self) -> None:
        while True:
            try:
                device, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.upstream))
            except OSError:
                device.close()
                continue
            self.connections += 1
            with self._lock:
                self._pairs.append((device, server))
            threading.Thread(target=self._pump, args=(device, server, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, device, False), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, upwards: bool) -> None:
        size = max(256, min(1 << 16, int(self.rate / 50))) if upwards and self.rate else 1 << 16
        free = 0.0
        with contextlib.suppress(OSError):
            while piece := source.recv(size):
                if upwards:
                    with self._lock:
                        self.up += len(piece)
                    if self.rate:
                        # From when the line was free, so that late wakings do not add up.
                        free = max(free, time.monotonic() - 0.05) + len(piece) / self.rate
                        time.sleep(max(0.0, free - time.monotonic()))
                sink.sendall(piece)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            # A socket that is only shut down goes on taking what comes, until it is full and the sender waits.
            end.close()
