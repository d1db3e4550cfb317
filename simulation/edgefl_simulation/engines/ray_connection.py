"""A connection to Ray: to a cluster that is there, or to one on this machine that lives as long as the simulation."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from edgefl.errors import (
    InvalidSettingError,
    MissingDependencyError,
    RuntimeFailure,
    ServerUnavailableError,
    first_line,
)
from edgefl.parts import install_line

__all__ = ["RayConnection"]

_ADDRESS, _TOKEN_MODE = "RAY_ADDRESS", "RAY_AUTH_MODE"
_CONNECT_SECONDS = 5.0
"""Ray itself would try for two minutes, and then end this process."""
_PREFIX, _OWNER = "edgefl-ray-", "edgefl-process"
_START = "Start one with `ray start --head`, or leave the address out: then one is started on this machine."


class RayConnection:
    """Ray, as far as the engine needs it.

    Args:
        address: ``host:port`` of a cluster's head, ``auto`` for one that runs on this machine; empty: what RAY_ADDRESS
            says, else the cluster that this process is connected to already, else a new one on this machine.
        processors: of a new one.

    Raises:
        MissingDependencyError: Ray is not installed.
        InvalidSettingError: the address is none, or of another cluster than this process is connected to.
        ServerUnavailableError: nothing answers there.
        RuntimeFailure: Ray cannot be started.

    Attributes:
        ray: the package.
        processors: that the cluster has.
    """

    def __init__(self, address: str, processors: int) -> None:
        self.ray = _package()
        self._connected = False
        self._folder: str | None = None
        self._token_mode = os.environ.get(_TOKEN_MODE)
        address = address or os.environ.get(_ADDRESS, "")
        if self.ray.is_initialized():
            known = self.ray.get_runtime_context().gcs_address
            if address not in ("", "auto", known):
                raise InvalidSettingError(
                    f"This process is connected to the Ray cluster at {known} already, got {address!r:.80}.",
                    hint="Leave the address out, or call ray.shutdown() before.",
                )
        elif address:
            self._connect(address)
        else:
            self._start(processors)
        self.processors = int(self.ray.cluster_resources().get("CPU", 0))

    def close(self) -> None:
        """Takes leave; a cluster that was started is ended, and what it wrote is deleted."""
        if self._connected:
            self._connected = False
            self.ray.shutdown()
            self.ray._private.worker._worker_logs_enabled = True
        if self._folder is not None:
            folder, self._folder = self._folder, None
            shutil.rmtree(folder, ignore_errors=True)
            if self._token_mode is None:
                # A cluster of ours asks for a token, which others need not do.
                os.environ.pop(_TOKEN_MODE, None)
                self.ray._raylet.AuthenticationTokenLoader.instance().reset_cache()
                self.ray._raylet.Config.initialize("")

    def _connect(self, address: str) -> None:
        if address != "auto":
            _require_answer(address)
        try:
            self._init(address=address)
        except ConnectionError as error:
            raise _unreachable(address, first_line(error)) from error
        except Exception as error:
            raise RuntimeFailure(
                f"This machine cannot use the Ray cluster at {address}: {first_line(error)}",
                hint="It has to be one of the cluster's nodes (`ray start --address`), with the same Ray and Python.",
            ) from error

    def _start(self, processors: int) -> None:
        _delete_left_over()
        # The path of a socket in it must be short.
        self._folder = tempfile.mkdtemp(prefix=_PREFIX)
        Path(self._folder, _OWNER).write_text(str(os.getpid()), encoding="ascii")
        constants = self.ray._private.ray_constants
        before = constants.ENABLE_RAY_CLUSTER
        try:
            constants.ENABLE_RAY_CLUSTER = False  # it then listens on 127.0.0.1 only
            path = os.pathsep.join(filter(None, sys.path))
            with _environment(PYTHONPATH=path, TMPDIR=self._folder, RAY_USAGE_STATS_ENABLED="0"):
                self._init(address="local", num_cpus=processors, include_dashboard=False, _temp_dir=self._folder)
        except Exception as error:
            self.close()
            raise RuntimeFailure(
                f"Ray cannot be started on this machine: {first_line(error)}",
                hint="The engine local does the same work without it.",
            ) from error
        finally:
            constants.ENABLE_RAY_CLUSTER = before

    def _init(self, **more: Any) -> None:
        with _signals():
            self.ray.init(log_to_driver=False, logging_level="ERROR", **more)
        self._connected = True
        # What nodes have to say about each other goes to standard output, which is for results.
        self.ray._private.worker._worker_logs_enabled = False


def _package() -> ModuleType:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"The engine ray needs the package {error.name!r}, which is not installed here.",
            hint=f"Install it with: {install_line('ray')}",
        ) from error
    return ray  # type: ignore[no-any-return]


def _delete_left_over() -> None:
    """Deletes folders of clusters whose simulation is gone: Ray ends this process at once where its raylet dies."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError, ValueError):  # somebody else's, or just being made or deleted
            if not Path("/proc", str(int((folder / _OWNER).read_text(encoding="ascii")))).exists():
                shutil.rmtree(folder, ignore_errors=True)


def _require_answer(address: str) -> None:
    host, colon, port = address.rpartition(":")
    if "://" in address or not (colon and host and port.isdecimal() and 0 < int(port) < 65536):
        raise InvalidSettingError(
            f"Ray's address expects host:port of the cluster's head, or auto, got {address!r:.80}.",
            hint="Run the simulation on one of the cluster's nodes; ray:// is not used.",
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except OSError as error:
        raise _unreachable(address, str(error.strerror or error)) from error


def _unreachable(address: str, why: str) -> ServerUnavailableError:
    return ServerUnavailableError(f"No Ray cluster answers at {address}: {why.rstrip('.')}.", hint=_START)


@contextlib.contextmanager
def _environment(**changes: str) -> Iterator[None]:
    """Lets processes that are started meanwhile inherit other values."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Keeps the handler of SIGTERM, which Ray replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
