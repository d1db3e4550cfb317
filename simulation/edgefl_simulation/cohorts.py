"""The tasks of a cohort and how they stand: what a server's database would have, in memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from edgefl.wire.messages import Task
from edgefl_server.aggregation import (
    Admission,
    Assignment,
    AssignmentState,
    Change,
    Concerned,
    Contribution,
    Standing,
    Update,
)
from edgefl_simulation.agenda import Agenda
from edgefl_simulation.engines import Worked
from edgefl_simulation.pace import Course
from edgefl_simulation.under_way import OpenTask, UnderWay
from edgefl_simulation.versions import Version

__all__ = ["AcceptedUpdate", "CohortTasks", "Flight"]


@dataclass(eq=False)
class Flight:
    """A task that a device is at.

    Attributes:
        device: which.
        task_id: the task's.
        ticket: of the engine's job; None: nothing is computed, as nothing of it would come.
        version: that it started from.
        course: when it does what.
        bytes_down: that the device fetches for it.
        attacks: the device does not do what it should.
        worked: what it sends, once that is computed.
        arrived: that has come.
        task: what the device was given; None: it is over, and only the time is left at which it was looked for.
    """

    device: str
    task_id: str
    ticket: int | None
    version: Version
    course: Course
    bytes_down: int = 0
    attacks: bool = False
    worked: Worked | None = None
    arrived: bool = False
    task: Task | None = None

    @property
    def bytes_up(self) -> int:
        """Bytes of the outcome, as far as it is known."""
        return 0 if self.worked is None else self.worked.bytes_up


@dataclass(frozen=True)
class AcceptedUpdate:
    """An update that will be folded.

    Attributes:
        update: with vectors in the engine's memory.
        flight: whence it came.
        number: its place among all that were accepted.
    """

    update: Update
    flight: Flight
    number: int

    @property
    def continues(self) -> str:
        """The task from the end of which its device went on; empty: none."""
        return (self.flight.task.continues or "") if self.flight.task is not None else ""

    def contribution(self, newest: int, by_acceptance: bool) -> Contribution:
        """To a fold that makes of the newest version the next one."""
        update, version = self.update.begun(self.flight.version.number, newest=newest), self.flight.version
        return Contribution(
            update.task_id,
            update.num_examples,
            lambda: update,
            self.number if by_acceptance else 0,
            update.staleness,
            lambda: version.weights,
            kept=True,
        )


class CohortTasks:
    """The latest cohort.

    Args:
        accepted: updates of the run that were accepted before.
        root: the id of the root device; empty: there is none.

    Attributes:
        standing: of the cohort and the fold that it works for.
        flights: what devices are at, by device.
    """

    def __init__(self, accepted: int, root: str) -> None:
        self.standing, self._root = Standing(accepted=accepted), root
        self.flights: dict[str, Flight] = {}
        self._tasks: dict[str, Assignment] = {}
        self._counted: set[str] = set()
        self._first_lease = math.inf

    def open(self, now: float, enrolled: int, version: int, admission: Admission | None) -> None:
        """Begins anew with another cohort, of whose fold nothing is known yet."""
        self.standing = Standing(
            opened_at=now,
            enrolled=enrolled,
            version=version,
            accepted=self.standing.accepted,
            admission=admission,
        )
        self._tasks.clear()
        self._counted.clear()
        self._first_lease = math.inf

    def under_way(
        self, coming: Iterable[tuple[float, Flight]], taken: int, look_at: float, marks: tuple[float, float]
    ) -> UnderWay:
        """Says what is open between two folds; see there."""
        flights = [(each, each.task) for each in self.flights.values() if each.task is not None]
        places = {flight: place for place, (flight, _) in enumerate(flights)}
        return UnderWay(
            self.standing,
            tuple(self._tasks.values()),
            tuple(OpenTask(each.device, task, each.course, each.bytes_down) for each, task in flights),
            tuple((time, places.get(flight, -1)) for time, flight in coming),
            taken,
            look_at,
            marks,
            {each.version.number: each.version.state for each, _ in flights},
        )

    def resume(self, under_way: UnderWay, flights: Sequence[Flight], agenda: Agenda[Flight], newest: Version) -> None:
        """Goes on where a cohort stood between two folds.

        Args:
            under_way: how it stood.
            flights: the tasks that were open.
            agenda: for what is to come.
            newest: the version of the weights.
        """
        self.standing = under_way.standing
        self._tasks = {each.device: each for each in under_way.tasks}
        self._first_lease = -math.inf
        self.flights = {each.device: each for each in flights}
        for time, place in under_way.coming:
            over = Flight("", "", None, newest, Course(time, time, time))
            agenda.add(time, flights[place] if place >= 0 else over)

    def next_window(self, now: float) -> float:
        """The time from which the cohort admits more devices; infinity: it admits all that it ever will."""
        admission, opened_at = self.standing.admission, self.standing.opened_at
        return math.inf if admission is None or opened_at is None else admission.next_window(opened_at, now)

    def start_from(self, version: int) -> None:
        """Says from which version tasks start from now on."""
        self.standing = replace(self.standing, version=version)

    def task_of(self, device: str) -> Assignment | None:
        """A device's latest task in the cohort."""
        return self._tasks.get(device)

    def open_tasks(self) -> list[Assignment]:
        """The tasks that devices are at."""
        return [self._tasks[device] for device in self.flights]

    def concerned(self, mine: Assignment | None, now: float) -> Concerned:
        """Names what a question to the schedule may concern; see `Concerned`."""
        overdue, late = self.past_their_lease(now)
        counted = mine is not None and mine.device in self._counted
        return Concerned(mine, overdue, late[0] if late else None, counted=counted, root=self._tasks.get(self._root))

    def past_their_lease(self, now: float) -> tuple[tuple[Assignment, ...], tuple[Assignment, ...]]:
        """Open tasks whose lease is over: those that were leased to the end, and the others, longest ago first."""
        if now < self._first_lease:
            return (), ()
        tasks = [each for each in self.open_tasks() if each.device != self._root]
        self._first_lease = min((each.leased_until for each in tasks), default=math.inf)
        overdue = tuple(each for each in tasks if each.leased_to_the_end and each.leased_until <= now)
        late = [each for each in tasks if not each.leased_to_the_end and each.leased_until < now]
        return overdue, tuple(sorted(late, key=lambda each: (each.leased_until, each.device)))

    def apply(self, change: Change) -> tuple[list[Flight], list[str]]:
        """Keeps what a decision changes.

        Returns:
            What devices were at that is over without an outcome, and who of them was out of time.
        """
        over, out_of_time = [], []
        for each in (*change.changed, *((change.assigned,) if change.assigned else ())):
            self._tasks[each.device] = each
            if each.state is AssignmentState.OPEN:
                self._first_lease = min(self._first_lease, each.leased_until)
            elif each.device in self.flights:
                over.append(self.flights.pop(each.device))
            if each.state is AssignmentState.OUT_OF_TIME:
                out_of_time.append(each.device)
            if each.state is AssignmentState.DONE and not change.left_out:
                self._counted.add(each.device)
        if change.released:
            for device, flight in self.flights.items():
                self._tasks[device] = replace(self._tasks[device], state=AssignmentState.ABANDONED)
                over.append(flight)
            self.flights.clear()
        if change.following is not None:
            self._counted.clear()
        self.standing = change.standing if change.following is None else change.following
        return over, out_of_time
