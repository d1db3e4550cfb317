"""The folder in which a device keeps what outlasts tasks and restarts, and which only one process uses."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgefl.atomic import read_bytes, sync_folder, write_bytes, write_text
from edgefl.certificates import Pins
from edgefl.errors import InvalidSettingError, StorageError, storage_error
from edgefl.hashing import sha256
from edgefl.own_folder import require_own_folder
from edgefl.wire.messages import Outcome
from edgefl_device_runtime.agent.identity import Identity
from edgefl_device_runtime.agent.trust import Trust

__all__ = ["StateFolder"]

_IDENTITY = "identity.json"
_OWN = (
    _IDENTITY,
    "enrolment.json",
    "pins.json",
    "outcome.message",
    "cache",
    "runs",
    "work.json",
    "aside",
    "threads.json",
    "trials.json",
    "status.json",
    "lock",
)


class StateFolder:
    """A device's folder.

    ======================  =====================================================================
    ``identity.json``       id and secret, mode 0600, made once
    ``enrolment.json``      server, population and pins, never the token
    ``pins.json``           certificates that the server has announced since
    ``outcome.message``     a finished outcome that the server has not answered yet
    ``cache/``              models and weights by hash
    ``runs/``               what never leaves the device and belongs to a run: see `Memories`
    ``work.json``           the server and population whose the outcome and the runs are
    ``aside/``              outcome and runs of others, each under the hash of server and population
    ``threads.json``        how many threads train each model fastest; see `choose_threads`
    ``trials.json``         models that are on their way through the interpreter for the first time; see `Trials`
    ``status.json``         what the device is doing, and its last tasks; see `Journal`
    ``lock``                held by the process that uses the folder
    ======================  =====================================================================

    Args:
        folder: made by `make` when it is missing, readable by its owner only.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.models = folder / "cache" / "models"
        self.weights = folder / "cache" / "weights"
        self.runs = folder / "runs"
        self.threads = folder / "threads.json"
        self.trials = folder / "trials.json"
        self.status = folder / "status.json"
        self._outcome = folder / "outcome.message"
        self._enrolment = folder / "enrolment.json"
        self._pins = folder / "pins.json"
        self._work = folder / "work.json"
        self._lock: Any = None

    def acquire(self) -> None:
        """Makes the folder where it is missing, and claims it for this process until it ends.

        Raises:
            StorageError: it cannot be made, holds somebody else's files, or another process has it.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, "make the folder", self.folder) from error
        require_own_folder(self.folder, (_IDENTITY,), _OWN)
        try:
            self._lock = (self.folder / "lock").open("a+b", buffering=0)  # a pipe is not waited for
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(
                f"Another process uses the state folder {self.folder}.",
                hint="Give each device on this machine a state folder of its own.",
            ) from error
        except OSError as error:
            raise storage_error(error, "lock", self.folder) from error
        # What a kill left behind in the middle of an atomic write.
        for leftover in (*self.folder.glob(".*.part"), *self.runs.glob(".*.part")):
            with contextlib.suppress(OSError):  # it costs some disk, and the next start tries again
                leftover.unlink()

    def release(self) -> None:
        """Gives the folder up."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def used(self) -> bool:
        """Says whether a process uses the folder; found out without claiming it, even for a moment."""
        try:
            lock = (self.folder / "lock").stat()
            lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
        except OSError:
            return False  # never used, or a system that does not tell: only the owner's `status` asks
        place = f"{os.major(lock.st_dev):02x}:{os.minor(lock.st_dev):02x}:{lock.st_ino}"
        return any("FLOCK" in line and f" {place} " in line for line in lines)

    def identity(self) -> Identity:
        """See `Identity.load_or_make`."""
        return Identity.load_or_make(self.folder)

    def remember_enrolment(self, enrolment: Mapping[str, Any]) -> None:
        """Stores where this device takes part."""
        write_text(self._enrolment, json.dumps(enrolment, indent=2), durable=True, mode=0o600)

    def enrolment(self) -> dict[str, Any]:
        """Returns what `remember_enrolment` stored; empty when there is nothing or it is damaged."""
        found = _read_json(self._enrolment)
        return found if all(isinstance(value, (str, type(None))) for value in found.values()) else {}

    def trust(self, given: Sequence[Pins]) -> Trust:
        """The certificates that count for a device that is given these pins: what its server has announced since.

        Raises:
            InvalidSettingError: a pin that is given is none.
        """
        Trust(given)
        given = [each for each in given if each != (None, None)]
        key = [list(each) for each in given]

        def learnt(pairs: list[Pins]) -> None:
            document = {"given": key, "trusted": [list(each) for each in pairs]}
            with contextlib.suppress(StorageError, OSError):  # the next answer says it again
                write_text(self._pins, json.dumps(document), durable=True, mode=0o600)

        found = _read_json(self._pins)
        if found.get("given") == key:  # else it is another server, or a new invitation
            # Of a damaged file the pins that the device was given are left, and the server tells the others again.
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, InvalidSettingError):
                return Trust([(own, pin) for own, pin in found["trusted"]], learnt)
        return Trust(given, learnt)

    def work_for(self, server: str, population: str) -> str | None:
        """Makes the outcome and the runs those of one server and population, and of no other.

        One server must not see what was learned for another one, nor which runs that has. What belongs to others is put
        aside, and brought back when it is their turn again. A kill at any moment leaves nothing in a wrong place: each
        thing is moved by one rename, and ``work.json`` changes when all of the former's are away.

        Returns:
            A line for the owner when something was put aside.

        Raises:
            StorageError: something cannot be moved.
        """
        now = {"server": server.rstrip("/"), "population": population}
        # A folder without work.json: from before there was one, when an enrolment said the same; or new.
        before = _read_json(self._work) or self.enrolment() or now
        before = {"server": str(before.get("server")).rstrip("/"), "population": str(before.get("population"))}
        moved = before != now and self._move(self.folder, self._aside(before))
        if _read_json(self._work) != now:
            write_text(self._work, json.dumps(now), durable=True, mode=0o600)
        self._move(self._aside(now), self.folder)
        if not moved:
            return None
        return (
            f"What this device keeps for {before['server']} ({before['population']}) is put aside until it is started "
            f"for that again."
        )

    def _aside(self, work: Mapping[str, str]) -> Path:
        name = sha256(json.dumps([work["server"], work["population"]]).encode())[:32]
        return self.folder / "aside" / name

    def _move(self, source: Path, target: Path) -> bool:
        """Moves outcome and runs, where there are any; says whether there were."""
        names = [path.name for path in (self._outcome, self.runs) if (source / path.name).exists()]
        for name in names:
            try:
                target.mkdir(mode=0o700, parents=True, exist_ok=True)
                (source / name).rename(target / name)
                sync_folder(target)
                sync_folder(source)
            except OSError as error:
                raise storage_error(error, "move", source / name) from error
        return bool(names)

    def keep_outcome(self, message: bytes) -> None:
        """Stores a finished outcome: once this returns, a crash costs no training."""
        write_bytes(self._outcome, message, durable=True)

    def has_outcome(self) -> bool:
        """Says whether there is an outcome that has not been answered yet."""
        return self._outcome.exists()

    def unsent_outcome(self) -> tuple[Outcome, bytes] | None:
        """The outcome that has not been answered yet, decoded and as bytes; None: there is none.

        Raises:
            FormatVersionError: another edgefl finished it, which spoke another version of the protocol.
            MessageError: it is damaged, as by a memory card that loses writes.
            StorageError: it is there and cannot be read.
        """
        try:
            message = read_bytes(self._outcome)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error(error, "read", self._outcome) from error
        return Outcome.decode(message), message

    def drop_outcome(self) -> None:
        """Forgets the outcome: the server has answered.

        A power cut may bring it back. It is then sent again, and the server says again what it said, or that nobody
        waits for it any more.
        """
        try:
            self._outcome.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error, "delete", self._outcome) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(read_bytes(path).decode())
    except (OSError, ValueError, RecursionError):
        return {}  # as if it had never been written: the device then asks for what it held
    return document if isinstance(document, dict) else {}
