"""A process of the http engine: real devices, one after another, which talk to a real server over real sockets.

Each has its own identity, state folder, cache and connections, and is switched off between two tasks; they share one
interpreter, as devices do in the other engines.

python -m edgefl_simulation.engines.http_devices DESCRIPTOR
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from edgefl.errors import EdgeflError, RuntimeFailure, first_line
from edgefl.parts import FACADE, load
from edgefl_device_runtime.agent.settings import Settings
from edgefl_device_runtime.tasks import ModelTrainer
from edgefl_device_runtime.training import TrainableModel
from edgefl_simulation.engines.http_messages import Answer, Ask, Begin, Broken, Ready
from edgefl_simulation.tables import Tables

__all__ = ["attend"]


def attend(connection: Connection) -> None:
    """Has devices do what they are told to, until nobody tells anything any more; then the process ends at once."""
    told: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, told), daemon=True).start()
    try:
        devices = _Devices(told.get())
        connection.send(Ready())
        while True:
            connection.send(devices.ask(told.get()))
    except ConnectionError:
        return
    except EdgeflError as error:
        connection.send(Broken(error))
    except Exception as error:  # not every library's errors can travel
        connection.send(Broken(RuntimeFailure(f"A device failed: {type(error).__name__}: {first_line(error)}")))


def _listen(connection: Connection, told: queue.SimpleQueue[Any]) -> None:
    """Takes orders while a device is at work, since it would try for ever to reach a server that is gone."""
    try:
        while True:
            told.put(connection.recv())
    except (EOFError, ConnectionError):
        os._exit(0)  # whatever is on the disk is safe against that


class _Devices:
    def __init__(self, begin: Begin) -> None:
        self._begin = begin
        self._settings = Settings(instance=begin.instance)
        self._tables = Tables(begin.tables)
        self._device: Callable[..., Any] = load(FACADE["Device"]).Device
        self._trainer: tuple[str, ModelTrainer] | None = None

    def ask(self, ask: Ask) -> Answer:
        """Has a device ask for work once, and do it.

        Raises:
            EdgeflError: what `edgefl.Device` raises.
        """
        begin, said = self._begin, list[str]()
        state = begin.states / ask.device
        joined = (state / "enrolment.json").exists()
        device = self._device(
            begin.server,
            begin.population,
            lambda: self._tables.read(ask.rows),
            state,
            token=None if joined else begin.token,
            minimum_examples=begin.minimum_examples,
            settings=self._settings,
            report=said.append,
            load_trainer=self._load,
        )
        with closing(device):
            report = device.step(wait=ask.wait)
        self._tables.release(ask.rows)
        if report is None:
            return Answer(ask.device)
        return Answer(ask.device, report.task_id, report.result, report.status, _why(said, report.status))

    def _load(self, path: Path) -> ModelTrainer:
        """Makes a trainer of a model file, whose name is its hash, unless it is the one that there is."""
        if self._trainer is None or self._trainer[0] != path.name:
            self._trainer = path.name, ModelTrainer(TrainableModel(path, runtime=self._begin.runtime))
        return self._trainer[1]


def _why(said: list[str], status: str) -> str:
    """Finds in what a device said why a task was not done."""
    if status == "done":
        return ""
    found = [line for line in said if f" {status} (" in line and "): " in line]
    return found[-1].partition("): ")[2] if found else status


if __name__ == "__main__":
    # Ctrl-C goes to all processes of a terminal; the simulation's own says what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    attend(Connection(int(sys.argv[1])))
