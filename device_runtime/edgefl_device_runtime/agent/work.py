"""One task on a device: fetches what it names, has it performed, and says what came out, whatever happens."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import (
    AuthenticationError,
    DataError,
    DataNotReadyError,
    EdgeflError,
    HashMismatchError,
    MissingDependencyError,
    storage_error,
)
from edgefl.manifest import ModelManifest
from edgefl.version import __version__
from edgefl.wire.messages import Outcome, Task, TaskKind
from edgefl_device_runtime.agent.cache import Cache
from edgefl_device_runtime.agent.connection import Connection
from edgefl_device_runtime.agent.downloads import download, free_bytes
from edgefl_device_runtime.agent.journal import Journal
from edgefl_device_runtime.agent.lease import AbandonedError, Lease
from edgefl_device_runtime.agent.memories import Memories
from edgefl_device_runtime.agent.replies import UnexpectedReplyError
from edgefl_device_runtime.agent.settings import Settings
from edgefl_device_runtime.agent.sources import Source, wrong_or_unfinished
from edgefl_device_runtime.agent.state import StateFolder
from edgefl_device_runtime.agent.summary import TaskReport
from edgefl_device_runtime.agent.trials import Trials
from edgefl_device_runtime.tasks import (
    Arrays,
    Examples,
    Received,
    Remembered,
    Trainer,
    arrange,
    check_allowed,
    check_deadline,
    check_fits,
    check_supported,
    memory_bytes,
    perform,
    reason_for,
    unfinished,
)

__all__ = ["Worker"]


class Worker:
    """Does tasks.

    Args:
        connection: to the server.
        state: where models, weights and memories lie.
        source: the local data.
        load_trainer: makes a trainer from a model file.
        minimum_examples: with fewer, a task is declined.
        kinds: of tasks that the owner lets this device do; others are declined.
        journal: told how far a task is.
        report: told what the owner should know.
        check: called after every step and before an error becomes an outcome; may raise to end the work.

    Attributes:
        version: of what trains, for outcomes.
        memories: of the runs.
    """

    def __init__(
        self,
        connection: Connection,
        state: StateFolder,
        source: Source,
        load_trainer: Callable[[Path], Trainer],
        minimum_examples: int,
        kinds: Collection[TaskKind],
        journal: Journal,
        report: Callable[[str], None],
        check: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._source = source
        self._load_trainer = load_trainer
        self._minimum, self._kinds = minimum_examples, kinds
        self._journal = journal
        self._report = report
        self._check = check
        self._trials = Trials(state.trials)
        settings = connection.settings
        self._models = Cache(state.models, settings.models_kept)
        self._weights = Cache(state.weights, settings.weights_kept)
        if free_bytes(state.folder) < settings.spare_disk:
            # Whether anybody will finish them is not known; that the disk is full is.
            self._models.drop_parts()
            self._weights.drop_parts()
        self.memories = Memories(state.runs, settings.spare_disk)
        self.version = f"edgefl/{__version__}"
        self._trainer: tuple[str, Trainer] | None = None

    def do(self, task: Task, report: TaskReport, lease: Lease) -> Outcome | None:
        """Makes the task's outcome, whatever happens; None when the server no longer wants it.

        Raises:
            AuthenticationError, MissingDependencyError: the owner has to act, and the task stays open until then.
        """
        # What an earlier task began to fetch would only lie there.
        self._models.drop_parts(task.model_hash)
        self._weights.drop_parts(task.base_weights_hash, *(each.sha256 for each in task.extra_vectors))
        self.version = f"edgefl/{__version__}"
        began = time.monotonic()

        def in_time() -> None:
            check_deadline(task, time.monotonic() - began)

        try:
            check_supported(task)
            check_allowed(
                task, self._kinds
            )  # this and what follows before `perform`: so that nothing is fetched in vain
            self._journal.doing("fetching the model", task)
            trainer = self._trainer_for(task, lease)
            self.version = trainer.version
            check_fits(task, trainer.manifest)
            received = self._received(task, trainer, lease)
            remembered = self._remembered(task)
            if kept := memory_bytes(task, trainer.manifest):
                self.memories.check_room(kept)  # before the work, not after
            examples = self._examples(trainer.manifest)
            told = _Told(
                report.title(), task, trainer, examples, in_time, self._journal, self._report, self._connection.settings
            )

            def check() -> None:
                self._check()
                lease.check()

            result = perform(
                task,
                trainer,
                received,
                examples,
                remembered,
                minimum_examples=self._minimum,
                progress=told,
                check=check,
                at_work=self._at_work(task, lease, told),
            )
            if result.error is not None:
                try:
                    return self._not_done(task, report, result.error)
                finally:
                    del result  # its error's traceback refers to this frame: both would stay, and with them the model
            if memory := result.remembered.get(task.task_id):
                self.memories.keep(task.run, task.task_id, memory)
            return result.outcome
        except AbandonedError:
            return None
        except (AuthenticationError, MissingDependencyError):
            raise
        except UnexpectedReplyError as error:
            # Proven to be the server's word: it does not hand out what its own task names, or no longer.
            report.unusable = True
            self._report(f"{report.title()}: {error}")
            return None
        except Exception as error:
            self._check()  # an import or a binding may have made it of what was to end the work
            return self._not_done(task, report, error)

    def _not_done(self, task: Task, report: TaskReport, error: Exception) -> Outcome:
        """Makes an outcome of whatever goes wrong on a device: the server must not wait for it."""
        status, reason = reason_for(error)
        text = str(error) if isinstance(error, EdgeflError) else f"{type(error).__name__}: {error}"
        line = f"{report.title()} {status.name.lower()} ({reason.name.lower()}): {text}"
        self._report(line)
        self._journal.error(line)
        return unfinished(task, status, reason, self.version)

    @contextlib.contextmanager
    def _at_work(self, task: Task, lease: Lease, told: _Told) -> Iterator[None]:
        """Notes that the model is at work, around its doing so."""
        lease.check()
        told.in_time()
        self._journal.doing(_DOING.get(task.kind, "training"))
        with self._trials.trial("run", task.model_hash) as told.survived:
            yield

    def _trainer_for(self, task: Task, lease: Lease) -> Trainer:
        if self._trainer is None or self._trainer[0] != task.model_hash:
            self._trainer = None  # two models at once would not fit
            wanted = task.model_hash
            path = download(
                self._connection, f"/v1/models/{wanted}", wanted, self._models, task.model_bytes, lease.check
            )
            with self._trials.trial("load", wanted):
                self._trainer = (wanted, self._load_trainer(path))
        return self._trainer[1]

    def _received(self, task: Task, trainer: Trainer, lease: Lease) -> Received:
        layout = trainer.manifest.layout
        weights = self._vector(task.base_weights_hash, task.base_weights_bytes, layout.size, lease, by_difference=True)
        further = {
            each.name: self._vector(each.sha256, each.bytes, layout.weight_size, lease) for each in task.extra_vectors
        }
        return Received(weights, further)

    def _remembered(self, task: Task) -> Remembered:
        """Recalls the memory of the run that counts, and forgets those that are not asked for any more."""
        if task.continues is None:
            return {}
        memory = self.memories.recall(task.run, task.continues, task.outstanding)
        return {} if memory is None else {task.continues: memory}

    def _vector(
        self, wanted: str, announced: int, elements: int, lease: Lease, *, by_difference: bool = False
    ) -> NDArray[np.float32]:
        path = download(
            self._connection,
            f"/v1/weights/{wanted}",
            wanted,
            self._weights,
            announced,
            lease.check,
            by_difference=by_difference,
        )
        try:
            # Before it is in memory: a vector may be larger than that.
            if path.stat().st_size != 4 * elements:
                raise HashMismatchError(
                    f"Expected a vector of length {elements} for this model, got {path.stat().st_size / 4:g}."
                )
            return np.fromfile(path, "<f4").astype(np.float32, copy=False)
        except OSError as error:
            raise storage_error(error, "read", path) from error

    def _examples(self, manifest: ModelManifest) -> Examples:
        try:
            return arrange(self._data(), manifest)
        except DataError as error:
            # One of a folder's files may be new already, and another one not yet.
            told = wrong_or_unfinished(self._source, error)
            if told is error:
                raise
            raise told from error

    def _data(self) -> Arrays:
        try:
            return self._source()
        except FileNotFoundError as error:
            raise DataNotReadyError(f"The data is not there: {error}.", hint="Check where the data lies.") from error


_DOING: dict[TaskKind | int, str] = {TaskKind.EVALUATE: "evaluating", TaskKind.STATISTICS: "summing up"}


class _Told:
    """Called after every step: tells the journal and, now and then, the owner.

    Attributes:
        survived: called first.
        in_time: called next; raises when nobody waits for the task any more, which is then what became of it.
    """

    def __init__(
        self,
        title: str,
        task: Task,
        trainer: Trainer,
        examples: Examples,
        in_time: Callable[[], None],
        journal: Journal,
        report: Callable[[str], None],
        settings: Settings,
    ) -> None:
        self._title = title
        batch = task.batch_size or trainer.manifest.batch_size
        expected = task.epochs * -(-examples.rows // max(batch, 1))
        self._expected = min(expected, task.max_steps) if task.max_steps else expected
        self._trainer = trainer
        self.survived: Callable[[], None] = lambda: None
        self.in_time = in_time
        self._journal = journal
        self._report = report
        self._pause = settings.progress_pause
        self._next = time.monotonic() + self._pause
        self._step = 0

    def __call__(self) -> None:
        self.survived()
        self.in_time()
        loss = self._trainer.latest_loss
        self._step += 1
        self._journal.step(self._step, self._expected, loss)
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + self._pause
            share = f" ({100 * self._step / self._expected:.0f} %)" if self._expected >= self._step else ""
            self._report(
                f"{self._title}: step {self._step} of about {self._expected}{share}"
                + ("" if loss is None else f", loss {loss:#.4g}")
            )
