"""The loop of a device: enrol, poll, do the task, send what came out, for as long as it is let."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from edgefl.certificates import Pins
from edgefl.credentials import check_token
from edgefl.errors import (
    AuthenticationError,
    EdgeflError,
    FormatVersionError,
    InvalidSettingError,
    MessageError,
    StorageError,
)
from edgefl.targets import distribution_of
from edgefl.version import __version__
from edgefl.wire.messages import Outcome, OutcomeStatus, Reason, Task
from edgefl.wire.refusals import Refusal
from edgefl.wire.words import is_name
from edgefl_device_runtime.agent.connection import Connection
from edgefl_device_runtime.agent.enrolment import Enrolment, device_capabilities
from edgefl_device_runtime.agent.journal import Journal
from edgefl_device_runtime.agent.lease import AbandonedError, Lease
from edgefl_device_runtime.agent.long_poll import LongPoll
from edgefl_device_runtime.agent.replies import GONE, plain
from edgefl_device_runtime.agent.settings import Settings
from edgefl_device_runtime.agent.sources import open_source
from edgefl_device_runtime.agent.state import StateFolder
from edgefl_device_runtime.agent.summary import Summary, TaskReport, kind_of
from edgefl_device_runtime.agent.telling import Sending
from edgefl_device_runtime.agent.uploads import upload
from edgefl_device_runtime.agent.work import Worker
from edgefl_device_runtime.tasks import (
    ALLOWED,
    MINIMUM_EXAMPLES,
    ModelTrainer,
    Trainer,
    allowed_kinds,
    given_up,
    unfinished,
)
from edgefl_device_runtime.training import TrainableModel
from edgefl_device_runtime.training.interpreter import check_installed, installed_runtimes

__all__ = ["Device"]

_LONGEST_LINE = 1000
_PINS = ("certificate_pin", "public_key_pin")
_INVITED = "The operator's invitation holds the right one."


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
        public_key_pin: that of its public key, as ``sha256//BASE64``; see `Connection`.
        next_pins: both of the certificate that the server is going to have; what it announces later is kept in `state`.
        num_threads: of the interpreter; ``auto`` measures once for each model which number trains fastest here.
        runtime: ``auto``, or an interpreter by name.
        minimum_examples: a task that would be done with fewer is declined: of a single example, an update may tell all.
        tasks: what this device does: some of ``train``, ``evaluate``, ``statistics``. Others are declined.
        report: told one line for every task and every trouble.
        settings: waiting times and limits.
        load_trainer: makes a trainer from a model file; by default `TrainableModel` on the interpreter.
        check: called after every step and before an error becomes an outcome; may raise to end the work.

    Raises:
        DataError: the data cannot be read.
        StorageError: the state folder cannot be used, or another process uses it.
        InvalidSettingError: the server's URL, the population, the token, a pin or the number of examples is malformed,
            or there is no such runtime or kind of tasks.
        MissingDependencyError: no interpreter is installed.

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
        public_key_pin: str | None = None,
        next_pins: Pins = (None, None),
        num_threads: int | str = 1,
        runtime: str = "auto",
        minimum_examples: int = MINIMUM_EXAMPLES,
        tasks: Collection[str] = ALLOWED,
        report: Callable[[str], None] = lambda line: None,
        settings: Settings | None = None,
        load_trainer: Callable[[Path], Trainer] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        if minimum_examples < 1:
            raise InvalidSettingError(f"Expected at least 1 as the minimum of examples, got {minimum_examples}.")
        kinds = allowed_kinds(tasks)
        if not is_name(population):
            raise InvalidSettingError(
                f"Expected letters, digits, dots, dashes and underscores as the population, got {population!r:.80}.",
                hint=_INVITED,
            )
        if token is not None:  # what no header can hold would never reach the server
            token = check_token(token, "the device's settings", shortest=1, hint=_INVITED)
        source = open_source(data)
        self._state = StateFolder(Path(state))
        load = load_trainer or _load_with(num_threads, runtime, self._state.threads)
        self._settings = settings or Settings()
        self._print = report
        self._introduction = ""
        trust = self._state.trust([(certificate_pin, public_key_pin), next_pins])
        self._connection = Connection(server, trust=trust, settings=self._settings, report=self._report)
        if self._connection.exposed:
            self._report(f"Warning: {server} is not encrypted: whoever listens on the way sees this device's updates.")
        self._state.acquire()
        if line := self._state.work_for(server, population):
            self._report(line)
        self._identity = self._state.identity()
        self._connection.authorization = self._identity.authorization
        self._journal = Journal(self._state.status, self._connection.contact, self._settings)
        self._worker = Worker(
            self._connection, self._state, source, load, minimum_examples, kinds, self._journal, self._report, check
        )
        where = {
            "server": server,
            "population": population,
            "certificate_pin": certificate_pin,
            "public_key_pin": public_key_pin,
            **{f"next_{name}": pin for name, pin in zip(_PINS, next_pins, strict=True) if pin is not None},
        }
        told = device_capabilities(_runtimes(runtime) if load_trainer is None else None, kinds)
        self._enrolment = Enrolment(self._connection, self._state, self._identity, where, token, told)
        self._long_poll = LongPoll(self._connection, self._settings.longest_task)
        self._open: Task | None = None
        self._rest = 0.0
        self._troubles = 0
        self._until_idle = False
        self.active_runs: int | None = None
        self._summary = Summary(self._identity.device_id, population, server)

    @property
    def device_id(self) -> str:
        """This device's name, 32 hexadecimal digits."""
        return self._identity.device_id

    @property
    def summary(self) -> Summary:
        """Everything that was done so far."""
        self._summary.bytes_up, self._summary.bytes_down = self._connection.bytes_up, self._connection.bytes_down
        return self._summary

    def run(self, *, until_idle: bool = False) -> Summary:
        """Works until it is told to stop, through every loss of the network.

        Args:
            until_idle: return when the population has no active run left.

        Raises:
            AuthenticationError: the server does not accept this device.
            StorageError: the state folder cannot be written.
        """
        self._introduction = (
            f"Device {self.device_id[:8]} (edgefl {__version__}) of {self._summary.population} at "
            f"{self._connection.server}: asking for work."
        )
        self._until_idle = until_idle
        while True:
            done = self.step(wait=self._settings.poll_wait)
            if done is None and until_idle and self.active_runs == 0:
                return self.summary
            if self._rest > 0:
                time.sleep(self._rest)

    def step(self, *, wait: float = 0.0) -> TaskReport | None:
        """Asks for work once, and does it; as long as the server is not reached, it waits and tries again.

        Args:
            wait: seconds that the server may wait for work to come up, at most 30.

        Returns:
            What was done; None when there was nothing to do.

        Raises:
            AuthenticationError, StorageError: see `run`.
        """
        self._rest = 0.0
        try:
            return self._step(wait)
        except AuthenticationError:
            if not self._enrolment.can_repeat:
                raise
        # The server may have lost its memory of this device; the token brings it back.
        self._enrolment.complete = False
        return self._step(wait)

    def close(self) -> None:
        """Gives back the task that it has not finished, and the state folder, for another `Device` of this process."""
        self._give_back()
        if self._state.has_outcome():
            self._report("One finished task is kept, and sent at the next start.")
        self._connection.close()
        self._journal.close("stopped")
        self._state.release()

    def _step(self, wait: float) -> TaskReport | None:
        if not self._enrolment.complete:
            self._enrolment.enrol()
        self._introduce()
        unsent = self._unsent()
        if unsent is not None:
            outcome, message = unsent
            self._report(f"Sending the outcome of {outcome.task_id}, which was finished before.")
            with Lease(self._connection, outcome.task_id) as lease:
                return self._send(outcome, message, TaskReport(outcome.task_id), lease, begun=True)
        self._journal.doing("asking for work" if self._connection.contact.last is None else "waiting for work")
        task, size = self._poll(wait)
        if task is None:
            return None
        self._open = task
        report = TaskReport(task.task_id, task.run, task.cohort, kind_of(task), task.version, started=time.monotonic())
        report.bytes_up, report.bytes_down = -self._connection.bytes_up, size - self._connection.bytes_down
        with Lease(self._connection, task.task_id) as lease:
            finished = self._worker.do(task, report, lease)
            if finished is None:
                self._open = None
                return self._abandon(report)
            report.note(finished)
            message = finished.encode()
            if self._keep(message):
                self._open = None
            return self._send(finished, message, report, lease)

    def _unsent(self) -> tuple[Outcome, bytes] | None:
        """The outcome that is still to be sent; one that this edgefl cannot read is dropped, and its owner told."""
        try:
            return self._state.unsent_outcome()
        except (FormatVersionError, MessageError) as error:
            line = f"A finished outcome that was not sent yet is dropped, its task is asked for again: {error.message}"
            self._state.drop_outcome()
            self._journal.error(line)
            self._report(line)
            return None

    def _poll(self, wait: float) -> tuple[Task | None, int]:
        """A task and the bytes of its message, or None."""
        asked = self._worker.memories.to_ask_about(self._settings.runs_asked)
        document: dict[str, Any] = {}
        if not self._until_idle:
            document["until_idle"] = False  # the server may hold the poll until there is a next run
        if asked:
            document["remembers"] = asked
        if self._enrolment.untold:
            document["capabilities"] = self._enrolment.capabilities
        reply = self._enrolment.patiently(lambda: self._long_poll.ask(document, wait))
        if reply.status < 400:
            self._enrolment.untold = False
        for run in reply.ended_runs(asked):
            self._worker.memories.forget(run)
        self.active_runs = None
        if reply.status == 204:
            advice = self._settings.rest_without_advice if reply.retry_after is None else reply.retry_after
            self._rest = min(advice, self._settings.longest_rest)
            self.active_runs = reply.active_runs
            return None, 0
        if reply.status != 200:
            self._trouble(f"{self._connection.server} refused to say whether there is work: {reply.message}")
            self._rest = max(self._rest, min(reply.retry_after or 0.0, self._settings.longest_rest))
            return None, 0
        try:
            return Task.decode(reply.body), len(reply.body)
        except FormatVersionError as error:
            self._trouble(f"The server hands out tasks of another protocol: {plain(str(error))}")
        except EdgeflError as error:
            self._trouble(f"The server hands out a task that cannot be read: {plain(str(error))}")
        return None, 0

    def _send(
        self, outcome: Outcome, message: bytes, report: TaskReport, lease: Lease, *, begun: bool = False
    ) -> TaskReport:
        self._journal.doing("sending what came out")
        report.note(outcome)
        told = Sending(report.title(), self._journal, self._report, self._settings.progress_pause)
        try:
            reply = upload(self._connection, outcome.task_id, message, begun=begun, check=lease.check, told=told)
        except AbandonedError:
            self._open = None
            self._state.drop_outcome()
            return self._abandon(report)
        if reply.status < 300:
            report.result = "accepted" if outcome.status == OutcomeStatus.DONE else "reported"
        elif reply.status == 409 or reply.status in GONE:
            report.result = reply.code
        else:
            report.result = f"refused: {reply.code}"
            self._report(f"The server refused the outcome of {outcome.task_id}: {reply.message}")
            if outcome.status == OutcomeStatus.DONE and reply.code != Refusal.CONFLICTING_OUTCOME:
                # The task is still open, and training again would give the same bytes again.
                failed = given_up(outcome, reply.code)
                message = failed.encode()
                self._keep(message)
                with contextlib.suppress(AbandonedError):  # then nobody waits for this outcome either
                    reply = upload(self._connection, outcome.task_id, message, check=lease.check)
        self._open = None
        self._state.drop_outcome()
        self._rest = min(reply.retry_after or 0.0, self._settings.longest_rest)
        return self._finish(report)

    def _keep(self, message: bytes) -> bool:
        try:
            self._state.keep_outcome(message)
        except StorageError as error:
            # Sending needs no disk; after a crash the same bytes would be trained again.
            self._report(str(error))
            return False
        return True

    def _give_back(self) -> None:
        """Tells the server, once and briefly, that another device may have the task in hand."""
        task, self._open = self._open, None
        if task is None or self._state.has_outcome():  # what is on the disk is sent before anything else is begun
            return
        outcome = unfinished(task, OutcomeStatus.DECLINED, Reason.NOT_READY, self._worker.version)
        bound = self._settings.stop_timeout

        def send() -> None:
            with contextlib.suppress(EdgeflError):  # the lease runs out by itself
                upload(self._connection, task.task_id, outcome.encode(), patience=bound)

        # A thread, since looking up a name takes as long as it takes.
        sending = threading.Thread(target=send, name="give back", daemon=True)
        sending.start()
        sending.join(bound)

    def _abandon(self, report: TaskReport) -> TaskReport:
        report.result = "abandoned"
        return self._finish(report)

    def _finish(self, report: TaskReport) -> TaskReport:
        report.seconds = time.monotonic() - report.started if report.started else 0.0
        report.bytes_up += self._connection.bytes_up
        report.bytes_down += self._connection.bytes_down
        if report.trouble:
            self._rest_longer()
        else:
            self._troubles = 0
        self._summary.add(report)
        self._journal.finished(report)
        self._report(str(report))
        return report

    def _trouble(self, line: str) -> None:
        self._journal.error(line)
        self._report(line)
        self._rest_longer()

    def _introduce(self) -> None:
        line, self._introduction = self._introduction, ""
        if line:
            self._print(line)

    def _report(self, line: str) -> None:
        """The one way to the owner's terminal: names in a model or a message are somebody else's words."""
        self._introduce()
        self._print(plain(line, _LONGEST_LINE))

    def _rest_longer(self) -> None:
        pause = self._settings.first_rest_after_trouble * 2**self._troubles
        self._rest = max(self._rest, min(pause, self._settings.longest_rest_after_trouble))
        self._troubles = min(self._troubles + 1, 30)


def _load_with(num_threads: int | str, runtime: str, threads_file: Path) -> Callable[[Path], Trainer]:
    check_installed(runtime)  # before any work: a task that then could not be done would be kept from others
    return lambda path: ModelTrainer(TrainableModel(path, num_threads, runtime, threads_file=threads_file))


def _runtimes(runtime: str) -> tuple[str, ...]:
    return installed_runtimes() if runtime == "auto" else (distribution_of(runtime),)
