"""The engine that has worker processes beside this one: vectors pass in shared memory, rows lie in mapped files."""

from __future__ import annotations

import itertools
import math
import os
import socket
from collections import deque
from dataclasses import dataclass, field, replace
from multiprocessing import connection

from edgefl.errors import RuntimeFailure
from edgefl_simulation.engines.arena import Arena
from edgefl_simulation.engines.base import Job, Setup, Vectors, Worked
from edgefl_simulation.engines.messages import Answers, Begin, Failure, Order, Places, Reply, put, views
from edgefl_simulation.engines.own_process import SINGLE_THREADED, OwnProcess
from edgefl_simulation.engines.tickets import Tickets

__all__ = ["Local"]

_MESSAGE = 0.01
"""Seconds of work that go into one message where jobs are shorter: one costs about 0.3 ms on both sides together."""
_ENVIRONMENT = {
    **SINGLE_THREADED,
    # A task makes and drops a dozen vectors as large as the weights. The C library would give each back to the system
    # at once, and the next one would be faulted in page by page: 2 of 17 ms with the 2NN (malloc(3), mallopt(3)).
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}
"""The part of a worker's environment that differs from this process's."""


class _Worker:
    """A process, and what it was told to do.

    Attributes:
        connection: to it.
        orders: the tickets of each message that it has not answered yet, in order.
    """

    def __init__(self, setup: Setup, arena: Arena) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = OwnProcess(
                "A worker process of the simulation",
                "worker",
                str(theirs.fileno()),
                descriptors=(theirs.fileno(), arena.descriptor),
                environment=_ENVIRONMENT,
            )
        self.connection = connection.Connection(ours.detach())
        self.orders: deque[list[int]] = deque()
        self.connection.send(Begin(setup, arena.descriptor, arena.elements))

    def wait_until_ready(self) -> None:
        """Returns when it has loaded the model.

        Raises:
            RuntimeFailure: it died.
            Exception: it could not load it.
        """
        try:
            first = self.connection.recv()
        except (EOFError, ConnectionError):
            raise self.death() from None
        if isinstance(first, Failure):
            raise first.error

    def death(self) -> RuntimeFailure:
        """Says how it ended."""
        return self._process.death()

    def close(self) -> None:
        """Ends it; a job that it is at takes no longer than its patience."""
        self.connection.close()
        self._process.close()


@dataclass
class _Base:
    slot: int
    places: Places = field(default_factory=dict)


class Local:
    """Worker processes with one interpreter each, reused for every device.

    Args:
        setup: what all jobs have in common.
        workers: how many processes.

    Raises:
        RuntimeFailure: a worker dies at once.
        EdgeflError: the model or a table cannot be loaded.
    """

    def __init__(self, setup: Setup, workers: int) -> None:
        expected = setup.expected
        # The base weights with one further vector, or all sections of an outcome.
        elements = 2 * expected.weight_size + expected.statistic_size
        self._arena = Arena.create(elements)
        self._numbers = itertools.count()
        self._bases: dict[int, _Base] = {}
        self._slots: dict[int, int] = {}
        self._tickets = Tickets(self._free)
        self._seconds = math.inf
        self._workers: list[_Worker] = []
        try:
            for _ in range(workers):
                self._workers.append(_Worker(setup, self._arena))
            for worker in self._workers:
                worker.wait_until_ready()
        except BaseException:
            self.close()
            raise

    def publish(self, vectors: Vectors) -> int:
        """See `Engine`."""
        base = next(self._numbers)
        slot = self._arena.take()
        self._bases[base] = _Base(slot, put(vectors, self._arena.view(slot)))
        return base

    def retire(self, base: int) -> None:
        """See `Engine`."""
        self._arena.give_back(self._bases.pop(base).slot)

    def submit(self, job: Job) -> int:
        """See `Engine`."""
        ticket = self._tickets.add(job)
        self._tell_workers()
        return ticket

    def result(self, ticket: int) -> Worked:
        """See `Engine`."""
        return self._tickets.result(ticket, self._collect)

    def release(self, ticket: int) -> None:
        """See `Engine`."""
        self._tickets.release(ticket)

    def close(self) -> None:
        """See `Engine`."""
        for worker in self._workers:
            worker.close()
        self._workers.clear()
        if self._arena.descriptor >= 0:
            os.close(self._arena.descriptor)
            self._arena.descriptor = -1

    def _tell_workers(self) -> None:
        """Hands jobs to whoever has none; a second message only while there are enough for all, so that none waits."""
        for most in (1, 2):
            for worker in self._workers:
                spare = most == 1 or self._tickets.waiting > len(self._workers)
                if self._tickets.waiting and spare and len(worker.orders) < most:
                    self._tell(worker, [self._tickets.take() for _ in range(self._at_once())])

    def _at_once(self) -> int:
        """The number of jobs in one message: of short ones so many that all workers still get some at the end."""
        share = self._tickets.waiting // (2 * len(self._workers))
        return max(1, min(share, int(_MESSAGE / self._seconds)))

    def _tell(self, worker: _Worker, tickets: list[int]) -> None:
        orders = []
        for ticket in tickets:
            job = self._tickets.job(ticket)
            slot = self._slots[ticket] = self._arena.take()
            base = self._bases[job.base]
            orders.append(Order(job, base.slot, base.places, slot))
        worker.orders.append(tickets)
        try:
            worker.connection.send(orders)
        except ConnectionError:
            raise worker.death() from None

    def _collect(self) -> None:
        """Waits for an answer, and hands out what can be begun then."""
        busy = {worker.connection: worker for worker in self._workers if worker.orders}
        for ready in connection.wait(list(busy)):
            worker = busy[ready]  # type: ignore[index]
            try:
                answers: Answers = worker.connection.recv()
            except (EOFError, ConnectionError):
                raise worker.death() from None
            tickets = worker.orders.popleft()
            self._seconds = max(1e-6, answers.seconds / len(tickets))
            for ticket, answer in zip(tickets, answers.each, strict=True):
                self._take(ticket, answer)
        self._tell_workers()

    def _take(self, ticket: int, answer: Reply | Failure) -> None:
        if isinstance(answer, Failure):
            self._tickets.answer(ticket, answer.error)
        elif answer.worked.update is None:
            self._tickets.answer(ticket, answer.worked)
        else:
            sections = views(answer.places, self._arena.view(self._slots[ticket]))
            update = replace(answer.worked.update, sections=sections)
            self._tickets.answer(ticket, replace(answer.worked, update=update))

    def _free(self, ticket: int) -> None:
        """Gives back the place for the vectors of a job that is over, if it had one."""
        if (slot := self._slots.pop(ticket, None)) is not None:
            self._arena.give_back(slot)
