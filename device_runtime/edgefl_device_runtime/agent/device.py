"""The loop of a device: poll, download, train, send, for as long as it is let."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from edgefl.codecs import codec_names
from edgefl.errors import (
    AuthenticationError,
    EdgeflError,
    InvalidSettingError,
    MissingDependencyError,
    StorageError,
    storage_error,
)
from edgefl.version import __version__
from edgefl.wire.messages import CONTENT_TYPE, Outcome, OutcomeStatus, Task
from edgefl_device_runtime.agent.cache import Cache
from edgefl_device_runtime.agent.connection import Connection, Reply, UnexpectedReplyError
from edgefl_device_runtime.agent.corrections import CONTROL
from edgefl_device_runtime.agent.examples import arrange
from edgefl_device_runtime.agent.lease import Lease
from edgefl_device_runtime.agent.local_training import (
    SUPPORTED_KINDS,
    Given,
    Trainer,
    check_supported,
    given_up,
    perform,
    reason_for,
    unfinished,
)
from edgefl_device_runtime.agent.memory import Memories, Memory
from edgefl_device_runtime.agent.settings import Settings
from edgefl_device_runtime.agent.sources import open_source
from edgefl_device_runtime.agent.state import StateFolder
from edgefl_device_runtime.agent.summary import Summary, TaskReport

__all__ = ["Device"]

_GONE = (403, 404, 410)


class _AbandonedError(Exception):
    """The server no longer wants the task that is being trained."""


class Device:
    """Takes part in federated training with data that stays here.

        device = edgefl.Device("https://server:8443", "kitchen", "data.npz", "state", token=token)
        device.run()

    Args:
        server: URL of the server.
        population: whose work this device does.
        data: see `open_source`.
        state: folder for identity, cache and unsent outcomes; one for each device, kept between runs.
        token: from the operator, needed the first time only.
        certificate_pin: SHA-256 of the server's certificate in hexadecimal; see `Connection`.
        num_threads: of the interpreter; ``auto`` measures once for each model which number trains fastest here.
        runtime: ``auto``, or an interpreter by name.
        report: told one line for every task and every trouble.
        settings: waiting times and limits.
        load_trainer: makes a trainer from a model file; by default `TrainableModel` on the interpreter.

    Raises:
        DataError: the data cannot be read.
        StorageError: the state folder cannot be used, or another process uses it.
        InvalidSettingError: the server's URL or the pin is malformed.

    Attributes:
        active_runs: how many runs the population had at the last poll without work; None before.
    """

    def __init__(
        self,
        server: str,
        population: str,
        data: Any,
        state: str | os.PathLike[str],
        *,
        token: str | None = None,
        certificate_pin: str | None = None,
        num_threads: int | str = 1,
        runtime: str = "auto",
        report: Callable[[str], None] = lambda line: None,
        settings: Settings | None = None,
        load_trainer: Callable[[Path], Trainer] | None = None,
    ) -> None:
        self._source = open_source(data)
        self._settings = settings or Settings()
        self._report = report
        self._token = token
        self._connection = Connection(server, certificate_pin=certificate_pin, settings=self._settings, report=report)
        if self._connection.exposed:
            report(f"Warning: {server} is not encrypted: whoever listens on the way sees this device's updates.")
        self._enrolment = {"server": server, "population": population, "certificate_pin": certificate_pin}
        self._state = StateFolder(Path(state))
        self._state.acquire()
        self._identity = self._state.identity()
        self._connection.authorization = self._identity.authorization
        self._models = Cache(self._state.models, self._settings.models_kept)
        self._weights = Cache(self._state.weights, self._settings.weights_kept)
        self._memories = Memories(self._state.runs, self._settings.runs_kept)
        self._load_trainer = load_trainer or _load_with(num_threads, runtime, self._state.threads)
        self._trainer: tuple[str, Trainer] | None = None
        self._enrolled = False
        self._rest = 0.0
        self._troubles = 0
        self.active_runs: int | None = None
        self._summary = Summary(self._identity.device_id, population, server)

    @property
    def device_id(self) -> str:
        """This device's name, 32 hexadecimal digits."""
        return self._identity.device_id

    @property
    def summary(self) -> Summary:
        """What was done so far."""
        self._summary.bytes_up, self._summary.bytes_down = self._connection.bytes_up, self._connection.bytes_down
        return self._summary

    def run(self, *, until_idle: bool = False) -> Summary:
        """Works until it is told to stop, through every loss of the network.

        Args:
            until_idle: return when the population has no active run left.

        Raises:
            AuthenticationError: the server does not accept this device.
            ProtocolError: the server answers what no server should.
            StorageError: the state folder cannot be written.
        """
        while True:
            done = self.step(wait=self._settings.poll_wait)
            if done is None and until_idle and self.active_runs == 0:
                return self.summary
            if self._rest > 0:
                time.sleep(self._rest)

    def step(self, *, wait: float = 0.0) -> TaskReport | None:
        """Asks for work once, and does it.

        Args:
            wait: seconds that the server may wait for work to come up, at most 30.

        Returns:
            What was done; None when there was nothing to do.

        Raises:
            AuthenticationError, ProtocolError, StorageError: see `run`.
        """
        self._rest = 0.0
        try:
            return self._step(wait)
        except AuthenticationError:
            if self._token is None or not self._enrolled:
                raise
        # The server may have lost its memory of this device; the token brings it back.
        self._enrolled = False
        return self._step(wait)

    def close(self) -> None:
        """Gives the state folder up, for another `Device` of this process."""
        self._connection.close()
        self._state.release()

    def _step(self, wait: float) -> TaskReport | None:
        if not self._enrolled:
            self._enrol()
        unsent = self._state.unsent_outcome()
        if unsent is not None:
            self._report(f"Sending the outcome of {unsent[0].task_id}, which was finished before.")
            return self._send(*unsent, TaskReport(unsent[0].task_id))
        reply = self._connection.call_json("POST", "/v1/tasks/next", {"wait": wait}, wait=wait)
        if reply.status == 204:
            advice = self._settings.rest_without_advice if reply.retry_after is None else reply.retry_after
            self._rest = min(advice, self._settings.longest_rest)
            self.active_runs = _count(reply.headers.get("EdgeFL-Active-Runs"))
            if self.active_runs == 0:
                self._memories.forget_all()
            return None
        if reply.status != 200:
            raise UnexpectedReplyError(reply, "Asked for work")
        task = Task.decode(reply.body)
        report = TaskReport(task.task_id, task.run, task.round, started=time.monotonic())
        report.bytes_up, report.bytes_down = -self._connection.bytes_up, len(reply.body) - self._connection.bytes_down
        outcome = self._work(task, report)
        if outcome is None:
            report.result = "abandoned"
            return self._finish(report)
        message = outcome.encode()
        self._keep(message)
        return self._send(outcome, message, report)

    def _enrol(self) -> None:
        if self._token is None:
            if self._state.enrolment().get("server") is None:
                raise InvalidSettingError(
                    "This device has not taken part before, and got neither an invitation nor a token.",
                    hint="Ask the operator (`edgefl server invite`) and give --invitation, or set EDGEFL_TOKEN.",
                )
            self._enrolled = True
            return
        reply = self._connection.call_json(
            "POST",
            "/v1/devices",
            {
                "device_id": self._identity.device_id,
                "secret_hash": self._identity.secret_hash,
                "population": self._enrolment["population"],
                "capabilities": _capabilities(),
            },
            authorization=f"Bearer {self._token}",
        )
        if reply.status in (403, 409):
            raise AuthenticationError(
                f"{self._connection.server} does not take this device in: {reply.message}",
                hint=reply.hint or "Ask the operator for a new invitation.",
            )
        if reply.status not in (200, 201):
            raise UnexpectedReplyError(reply, "Asked to take part")
        if self._state.enrolment() != self._enrolment:
            self._state.remember_enrolment(self._enrolment)
        self._enrolled = True

    def _work(self, task: Task, report: TaskReport) -> Outcome | None:
        """The task's outcome, whatever happens; None when the server no longer wants it."""
        version = f"edgefl/{__version__}"
        with Lease(self._connection, _task_path(task.task_id, "lease")) as lease:

            def progress() -> None:
                if lease.lost.is_set():
                    raise _AbandonedError

            try:
                check_supported(task)
                trainer = self._trainer_for(task)
                version = trainer.version
                given = self._given(task)
                examples = arrange(self._source(), trainer.manifest)
                progress()
                performed = perform(task, trainer, given, examples, progress)
                outcome = performed.outcome
                if performed.memory.vectors:
                    self._memories.keep(task.run, task.task_id, performed.memory)
            except _AbandonedError:
                return None
            except (AuthenticationError, MissingDependencyError):
                raise  # the owner has to act, and the task stays open until then
            except UnexpectedReplyError as error:
                if error.reply.status in _GONE:
                    return None
                raise
            except Exception as error:
                # Whatever goes wrong on a device is an outcome: the server must not wait for it.
                status, reason = reason_for(error)
                text = str(error) if isinstance(error, EdgeflError) else f"{type(error).__name__}: {error}"
                self._report(f"{report.title()} {status.name.lower()} ({reason.name.lower()}): {text}")
                outcome = unfinished(task, status, reason, version)
        report.note(outcome)
        return outcome

    def _trainer_for(self, task: Task) -> Trainer:
        if self._trainer is None or self._trainer[0] != task.model_hash:
            self._trainer = None  # two models at once would not fit
            path = self._connection.download(f"/v1/models/{task.model_hash}", task.model_hash, self._models)
            self._trainer = (task.model_hash, self._load_trainer(path))
        return self._trainer[1]

    def _given(self, task: Task) -> Given:
        further = {each.name: self._vector(each.sha256) for each in task.extra_vectors}
        memory = Memory() if task.continues is None else self._memories.recall(task.run, task.continues)
        return Given(self._vector(task.base_weights_hash), further.get(CONTROL), memory)

    def _vector(self, wanted: str) -> NDArray[np.float32]:
        path = self._connection.download(f"/v1/weights/{wanted}", wanted, self._weights)
        try:
            return np.fromfile(path, "<f4").astype(np.float32, copy=False)
        except OSError as error:
            raise storage_error(error, "read", path) from error

    def _send(self, outcome: Outcome, message: bytes, report: TaskReport) -> TaskReport:
        path = _task_path(outcome.task_id, "outcome")
        reply = self._connection.call("PUT", path, body=message, content_type=CONTENT_TYPE)
        if reply.status == 202:
            report.result = "accepted" if outcome.status == OutcomeStatus.DONE else "reported"
        elif reply.status == 409 or reply.status in _GONE:
            report.result = reply.code or "surplus"
        elif reply.status in (413, 422):
            report.result = f"refused: {reply.code or reply.status}"
            self._report(f"The server refused the outcome of {outcome.task_id}: {reply.message}")
            if outcome.status == OutcomeStatus.DONE and reply.code != "conflicting_outcome":
                # The task is still open, and training again would give the same bytes again.
                reply = self._give_up(outcome, reply.code)
        else:
            raise UnexpectedReplyError(reply, "Sent an outcome")
        self._state.drop_outcome()
        self._rest = min(reply.retry_after or 0.0, self._settings.longest_rest)
        report.note(outcome)
        return self._finish(report)

    def _keep(self, message: bytes) -> None:
        try:
            self._state.keep_outcome(message)
        except StorageError as error:
            # Sending needs no disk; after a crash the same bytes would be trained again.
            self._report(str(error))

    def _give_up(self, outcome: Outcome, refusal: str) -> Reply:
        failed = given_up(outcome, refusal)
        message = failed.encode()
        self._keep(message)
        path = _task_path(outcome.task_id, "outcome")
        return self._connection.call("PUT", path, body=message, content_type=CONTENT_TYPE)

    def _finish(self, report: TaskReport) -> TaskReport:
        report.seconds = time.monotonic() - report.started if report.started else 0.0
        report.bytes_up += self._connection.bytes_up
        report.bytes_down += self._connection.bytes_down
        if report.trouble:
            longest = self._settings.longest_rest_after_trouble
            pause = min(self._settings.first_rest_after_trouble * 2**self._troubles, longest)
            self._rest = max(self._rest, pause)
            self._troubles = min(self._troubles + 1, 30)
        else:
            self._troubles = 0
        self._summary.add(report)
        self._report(str(report))
        return report


def _load_with(num_threads: int | str, runtime: str, threads_file: Path) -> Callable[[Path], Trainer]:
    def load(path: Path) -> Trainer:
        from edgefl_device_runtime.agent.trainer import InterpreterTrainer

        return InterpreterTrainer(path, num_threads=num_threads, runtime=runtime, threads_file=threads_file)

    return load


def _capabilities() -> dict[str, Any]:
    """What a server may want to know before it hands out work; nothing that tells who owns the device."""
    return {
        "edgefl": __version__,
        "codecs": list(codec_names()),
        "kinds": [kind.name.lower() for kind in SUPPORTED_KINDS],
        "machine": platform.machine(),
    }


def _task_path(task_id: str, what: str) -> str:
    return f"/v1/tasks/{quote(task_id, safe='')}/{what}"


def _count(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None
