"""The engine on a Ray cluster: actors with one interpreter each; vectors and updates pass through Ray's object store.

A node may be lost at any moment: its jobs are done again elsewhere, and end with the same bits. Rows are mapped from
the files of the run where a machine sees them, and else sent to it once.
"""

from __future__ import annotations

import contextlib
import itertools
import secrets
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from edgefl.atomic import write_text
from edgefl.errors import InvalidSettingError, RuntimeFailure, first_line
from edgefl_simulation.engines.base import Job, Setup, Vectors, Worked
from edgefl_simulation.engines.ray_connection import RayConnection
from edgefl_simulation.engines.ray_site import MARK, Done, Failed, Loaded, Site, continued, pieces_of
from edgefl_simulation.engines.tickets import Tickets
from edgefl_simulation.memories import Memories

__all__ = ["Ray"]

_PATIENCE = 120.0
"""Seconds that an actor may take to begin where there is no other one."""
_LEAVE_SECONDS = 0.5
"""Seconds that actors may take to delete what they have written."""
_DEATHS = 3
"""Actors that may be lost to one job."""
_ORDERS = 2
"""Jobs that an actor is given at a time, so that it need not wait for the next one."""


@dataclass(eq=False)
class _Worker:
    """An actor, and what it was told to do.

    Attributes:
        actor: Ray's handle.
        loading: the answer to come; None once it is ready.
        orders: tickets that it has not answered yet, by the answer to come, in order.
    """

    actor: Any
    loading: Any
    orders: dict[Any, int] = field(default_factory=dict)


class Ray:
    """Actors on a Ray cluster.

    Args:
        setup: what all jobs have in common.
        workers: how many actors; 0: one for each processor of the cluster, and at most as many as jobs at a time.
        at_once: jobs at a time.
        processors: of a cluster that is started on this machine.
        address: see `RayConnection`.

    Raises:
        EdgeflError: what `RayConnection` raises; the model or a table cannot be loaded.
        InvalidSettingError: the cluster has fewer processors.
        RuntimeFailure: no actor can begin.
    """

    def __init__(self, setup: Setup, workers: int, at_once: int, processors: int, address: str = "") -> None:
        self._setup = setup
        self._memories = Memories(setup.memories)
        self._numbers = itertools.count()
        self._bases: dict[int, Any] = {}
        self._deaths: Counter[int] = Counter()
        self._tickets = Tickets(self._forget)
        self._workers: list[_Worker] = []
        self._pieces: list[tuple[str, Any]] = []
        self._versions = ""
        self._wanted = self._never_began = 0
        self._connection = RayConnection(address, workers or processors)
        self._ray: Any = self._connection.ray
        self._mark = secrets.token_hex(8)
        try:
            write_text(setup.tables / MARK, self._mark)
            there = self._connection.processors
            if workers > there:
                raise InvalidSettingError(
                    f"The Ray cluster has {there} processors, and {workers} workers are wanted.",
                    hint="Take fewer workers, or leave their number out.",
                )
            self._wanted = workers or max(1, min(there, at_once))
            for _ in range(self._wanted):
                self._add()
            # The others take part as soon as they are there: a node may be lost, and Ray not know of it yet.
            while not any(each.loading is None for each in self._workers):
                self._collect()
        except BaseException:
            self.close()
            raise

    def publish(self, vectors: Vectors) -> int:
        """See `Engine`."""
        base = next(self._numbers)
        self._bases[base] = self._ray.put(dict(vectors))
        return base

    def retire(self, base: int) -> None:
        """See `Engine`."""
        del self._bases[base]

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
        self._tickets.clear()
        self._bases.clear()
        workers, self._workers = self._workers, []
        with contextlib.suppress(Exception):  # whatever has become of the cluster
            leaving = [each.actor.leave.remote() for each in workers]
            self._ray.wait(leaving, num_returns=len(leaving), timeout=_LEAVE_SECONDS)
        for worker in workers:
            self._dismiss(worker)
        self._connection.close()

    def _dismiss(self, worker: _Worker) -> None:
        """Ends an actor, or what is left of it."""
        with contextlib.suppress(Exception):
            self._ray.kill(worker.actor)
        worker.actor = None

    def _forget(self, ticket: int) -> None:
        del self._deaths[ticket]  # which a Counter need not have

    def _add(self) -> None:
        """Asks for an actor; it begins when the cluster has room for it."""
        made = self._ray.remote(Site).options(num_cpus=1, scheduling_strategy="SPREAD")
        actor = made.remote(self._setup, self._mark)
        self._workers.append(_Worker(actor, actor.load.remote()))

    def _tell_workers(self) -> None:
        """Hands jobs to whoever has none; a second one only while there are enough for all, so that none waits long."""
        ready = [each for each in self._workers if each.loading is None]
        for most in range(1, _ORDERS + 1):
            for worker in ready:
                spare = most == 1 or self._tickets.waiting > len(ready)
                if self._tickets.waiting and spare and len(worker.orders) < most:
                    self._tell(worker, self._tickets.take())

    def _tell(self, worker: _Worker, ticket: int) -> None:
        job = self._tickets.job(ticket)
        memory = self._memories.packed(continued(job))
        order = worker.actor.do.remote(job, self._bases[job.base], memory)
        worker.orders[order] = ticket

    def _collect(self) -> None:
        """Waits for an answer, and hands out what can be begun then."""
        coming = {order: worker for worker in self._workers for order in worker.orders}
        coming |= {worker.loading: worker for worker in self._workers if worker.loading is not None}
        waiting = None if any(each.loading is None for each in self._workers) else _PATIENCE
        ready, _ = self._ray.wait(list(coming), num_returns=1, timeout=waiting)
        if not ready:
            raise RuntimeFailure(
                f"There is no worker on the Ray cluster, and it has not begun one within {_PATIENCE:.0f} s.",
                hint="Are its processors in use? `ray status` says so. What has a folder can be resumed.",
            )
        for order in ready:
            worker = coming[order]
            if worker not in self._workers:
                continue  # lost with another order
            try:
                answer = self._ray.get(order)
            except self._ray.exceptions.RayError as error:
                self._lose(worker, error)
                continue
            if order is worker.loading:
                self._begin(worker, answer)
            else:
                self._take(worker.orders.pop(order), answer)
        self._tell_workers()

    def _begin(self, worker: _Worker, answer: Loaded | Failed | None) -> None:
        """Goes on when an actor has loaded its files, or does not see them."""
        if isinstance(answer, Failed):
            raise answer.error
        if answer is None:
            if not self._pieces:
                self._pieces = [(name, self._ray.put(content)) for name, content in pieces_of(self._setup)]
            worker.loading = worker.actor.load.remote(self._pieces)
            return
        self._versions = self._versions or answer.versions
        if answer.versions != self._versions:
            raise RuntimeFailure(
                f"The nodes of the Ray cluster would not compute the same bits: one has {answer.versions}, another "
                f"{self._versions}.",
                hint="Install the same versions on all of them.",
            )
        worker.loading = None
        if all(each.loading is None for each in self._workers):
            self._pieces = []

    def _lose(self, worker: _Worker, error: Exception) -> None:
        """Has the jobs of an actor that is lost, or whose result is, done by others."""
        self._workers.remove(worker)
        self._dismiss(worker)
        if worker.loading is not None:
            self._never_began += 1
            if self._never_began > 2 * self._wanted:
                if not self._workers:
                    raise RuntimeFailure(
                        f"The workers on the Ray cluster cannot begin: {_cause(error)}",
                        hint="Every node needs the same edgefl as this machine, with the extra ray.",
                    ) from error
                return  # the others go on without one
        back = [ticket for ticket in reversed(worker.orders.values()) if self._tickets.put_back(ticket)]
        at = next(iter(worker.orders.values()), None)
        if at in back:
            self._deaths[at] += 1
            if self._deaths[at] >= _DEATHS:
                raise RuntimeFailure(
                    f"{_DEATHS} workers on the Ray cluster ended at the same task: {_cause(error)}",
                    hint="That is often a lack of memory. What has a folder can be resumed.",
                ) from error
        self._add()

    def _take(self, ticket: int, answer: Done | Failed) -> None:
        if isinstance(answer, Failed):
            self._tickets.answer(ticket, answer.error)
            return
        if answer.memory is not None:
            self._memories.put(self._tickets.job(ticket).task.task_id, answer.memory)
        self._tickets.answer(ticket, answer.worked)


def _cause(error: Exception) -> str:
    """The line of Ray's many that tells the cause: the last one that names an error, or says why an actor died."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "Error: " in line or line.startswith("The actor died because")]
    return telling[-1][:300] if telling else first_line(error)
