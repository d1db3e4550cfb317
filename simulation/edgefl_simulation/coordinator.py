"""A run as a server has it, in memory and in simulated time: it asks the schedule and does what that says.

What is decided here is what the server's storage decides, by the same functions: `Schedule`, `task_for`, `validate`,
`fold`, `after_fold` and `after_failure`. Beside them it only keeps what a database would keep.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from edgefl.wire.messages import OutcomeStatus
from edgefl_server.aggregation import (
    Assignment,
    Change,
    Cohort,
    Folded,
    FoldError,
    FoldState,
    Next,
    Progress,
    Standing,
    StrategyState,
    TaskSource,
    after_failure,
    after_fold,
    apart,
    broadcast,
    ending,
    finalise,
    fold,
    fold_seed,
    in_order,
    root_device_of,
    schedule_for,
    strategy_for,
    task_for,
    without_residual,
)
from edgefl_simulation.accounts import Accounts
from edgefl_simulation.agenda import Agenda
from edgefl_simulation.cohorts import AcceptedUpdate, CohortTasks, Flight
from edgefl_simulation.continuing import Continuing
from edgefl_simulation.devices import Devices
from edgefl_simulation.draws import Line
from edgefl_simulation.engines import Engine
from edgefl_simulation.patience import Patience
from edgefl_simulation.plans import Checkpoint, Plan, Round
from edgefl_simulation.rests import Rests
from edgefl_simulation.selecting import Selecting
from edgefl_simulation.under_way import UnderWay
from edgefl_simulation.versions import Versions

__all__ = ["Coordinator"]

_LONGEST_PAUSE = 60.0
"""Simulated seconds after which the schedule is asked again whether it has work for those whom it had none for."""


class Coordinator:
    """A run in simulated time.

    Args:
        plan: what is simulated.
        engine: does the devices' work.
        checkpoint: where the run goes on.
    """

    def __init__(self, plan: Plan, engine: Engine, checkpoint: Checkpoint) -> None:
        self._plan, self._engine = plan, engine
        self._settings = plan.settings
        self._schedule, self._strategy = schedule_for(plan.settings), strategy_for(plan.settings)
        self._demand, self._believed, self._root = self._strategy.demand, plan.believed, root_device_of(plan.settings)
        self._agenda: Agenda[Flight] = Agenda(checkpoint.clock)
        self._state = checkpoint.state
        self._cohort, self._fold = checkpoint.cohort, checkpoint.fold
        self._failed_in_a_row = checkpoint.failed_in_a_row
        self._over, self._resumed = checkpoint.fold, checkpoint.under_way
        self._continuing, self._rests = Continuing.of(plan, self._demand, checkpoint), Rests(checkpoint.late)
        self._versions = Versions(plan, engine, self._demand)
        self._version = self._versions.publish(checkpoint.version, self._state)
        self._tasks = CohortTasks(checkpoint.accepted, self._root)
        self._look_at = math.inf
        self._patience = Patience(checkpoint.clock, plan.settings.effective_task_seconds)
        self._devices = Devices(plan, engine, checkpoint.fetched)
        self._accounts = Accounts(checkpoint.clock)
        self._line = Line(0, 0, 0)
        self._accepted: list[AcceptedUpdate] = []
        self._values = list(checkpoint.values)
        self._selecting = Selecting(plan, checkpoint.past)
        self._next = Next.COHORT

    @property
    def state(self) -> StrategyState:
        """The strategy's, after the latest fold."""
        return self._state

    @property
    def base(self) -> int:
        """The number of the newest weights among the engine's published vectors."""
        return self._version.base

    @property
    def source(self) -> TaskSource:
        """The part that tasks from the newest weights have in common."""
        return self._version.source

    @property
    def folded(self) -> dict[str, str]:
        """Each device's latest task that is part of the weights, where it remembers something of it."""
        return self._continuing.folded

    def begin(self) -> None:
        """Nothing is to be started."""

    def close(self) -> None:
        """Nothing was started."""

    def discard(self) -> None:
        """Nothing was written."""

    def checkpoint(self) -> Checkpoint | None:
        """Says how far the run has come; None where a cohort goes on that does not admit all, which is not kept."""
        under_way = None
        if self._next is Next.GATHERING:
            if self._tasks.standing.admission is not None:
                return None
            coming = self._agenda.coming()
            under_way = self._tasks.under_way(coming, self._line.taken, self._look_at, self._patience.marks)
        return Checkpoint(
            self._state,
            self._version.number,
            self._cohort,
            self._over,
            self._agenda.now,
            self._failed_in_a_row,
            self._tasks.standing.accepted,
            dict(self.folded),
            dict(self._rests.late),
            self._devices.fetched,
            tuple(self._values),
            dict(self._selecting.past),
            under_way,
        )

    def rounds(self) -> Iterator[Round]:
        """Goes on to the end of the run; yields each fold once it is over.

        Raises:
            RunError: nothing happens any more, or the schedule contradicts itself.
            EdgeflError: what the engine raises.
        """
        if self._resumed is not None:
            self._resume(self._resumed)
        while self._next in (Next.COHORT, Next.GATHERING):
            if self._next is Next.COHORT:
                self._open_cohort()
            yield self._gather()

    def _resume(self, under_way: UnderWay) -> None:
        """Goes on with a cohort between two of its folds."""
        versions = self._versions.publish_again(under_way.versions, self._version)
        flights = self._devices.resumed(under_way.open, versions)
        self._tasks.resume(under_way, flights, self._agenda, self._version)
        seed = self._settings.effective_seed
        self._line = Line(self._plan.devices, seed, self._cohort, taken=under_way.taken)
        self._look_at, self._fold, self._next = under_way.look_at, self._over + 1, Next.GATHERING
        self._patience.resume(under_way.marks)

    def _open_cohort(self) -> None:
        """Opens the next cohort, with a fold of its own."""
        self._cohort += 1
        self._fold += 1
        admission, order = self._selecting.admission(self._cohort)
        self._tasks.open(self._agenda.now, len(self._plan.fleet), self._version.number, admission)
        self._look_at = math.inf
        self._patience.renew(self._agenda.now)
        seed = self._settings.effective_seed
        self._line = Line(self._plan.devices, seed, self._cohort, order=order)

    def _gather(self) -> Round:
        """Hands out tasks and takes outcomes until a fold is over."""
        wait = 1.0
        while True:
            if self._hand_out():
                wait = 1.0
            said = f"Round {self._fold} has {self._tasks.standing.done} of {self._settings.target} outcomes"
            self._patience.check(self._agenda.now, said, self._accounts.errors)
            if not len(self._agenda) and self._look_at == math.inf:
                # Devices that failed are asked again after a pause, which only the schedule knows.
                self._look_at = self._agenda.now + wait
                wait = min(2 * wait, _LONGEST_PAUSE)
            arrived = self._agenda.next_before(self._look_at)
            change = self._look() if arrived is None else self._arrive(arrived)
            if change is None:
                continue
            number = self._fold
            self._apply(change)
            if change.standing.state is FoldState.FOLDING:
                return self._merge(number, change.standing)
            if change.standing.state is FoldState.FAILED:
                return self._give_up(number, change.standing)

    def _hand_out(self) -> bool:
        """Gives tasks to devices that are there and wait, as many as there are places; whether there was one."""
        now = self._agenda.now
        any_assigned = self._plan.root is not None and self._offer(self._plan.root, self._root)
        most, asked_again = self._devices.asking(now)
        away = 0
        for _ in range(most):
            overdue, late = self._tasks.past_their_lease(now)
            if self._schedule.places(self._tasks.standing, len(overdue), len(late)) <= 0:
                return any_assigned
            device = next(self._line)
            name = self._plan.fleet.names[device]
            flight = self._tasks.flights.get(name)
            rests = self._rests.rests(name, now, self._schedule.rest_seconds)
            if (flight is not None and now < flight.course.gone) or rests:
                continue
            back = self._devices.back(device, now)
            if back > now:
                asked_again, away = min(asked_again, back), away + 1
                continue
            any_assigned = self._offer(device, name) or any_assigned
        self._look_at = min(self._look_at, self._tasks.next_window(now))
        if away:
            self._look_at = min(self._look_at, asked_again)
            if not len(self._agenda) and asked_again < math.inf:  # nothing is waited for but devices
                self._patience.expect(asked_again)
        return any_assigned

    def _offer(self, device: int, name: str) -> bool:
        """Lets a device begin a task, if there is one for it."""
        concerned = self._tasks.concerned(self._tasks.task_of(name), self._agenda.now)
        if self._tasks.standing.admission is not None and name != self._root:
            concerned = replace(concerned, key=self._selecting.key(device))
        change = self._schedule.assign(self._tasks.standing, concerned, name, self._agenda.now)
        if change is None or change.assigned is None:
            return False
        self._apply(change)
        self._start(change.assigned, device)
        return True

    def _start(self, assignment: Assignment, device: int) -> None:
        """Lets a device begin its task, and notes when it will be heard of."""
        now, name = self._agenda.now, assignment.device
        source = replace(self._version.source, cohort=self._cohort, fold=self._fold)
        left = self._schedule.seconds_left(self._tasks.standing, assignment, now)
        task = task_for(source, self._settings, self._demand, assignment, left, self._continuing.task(name))
        flight = self._tasks.flights[name] = self._devices.begin(task, device, name, self._version, now)
        self._accounts.asked(flight)
        if flight.course.is_computed:
            self._agenda.add(flight.course.computed, flight)
        self._version.users += 1
        self._look_at = min(self._look_at, self._due(assignment))

    def _due(self, assignment: Assignment) -> float:
        """The time at which the schedule is to look at a task again: its lease is over, or no time is left for it."""
        left = self._schedule.seconds_left(self._tasks.standing, assignment, self._agenda.now)
        # A lease is over after its last moment.
        return min(math.nextafter(assignment.leased_until, math.inf), self._agenda.now + left)

    def _arrive(self, flight: Flight) -> Change | None:
        """Takes what a device sends; None where it is still on its way, or nobody waits for it any more."""
        if self._tasks.flights.get(flight.device) is not flight:
            return None
        now = self._agenda.now
        worked, arrives = self._devices.work_of(flight)
        if arrives > now:
            if arrives < math.inf:
                self._agenda.add(arrives, flight)
            return None
        state, temporary = ending(OutcomeStatus(worked.outcome.status), worked.outcome.reason)
        if flight.device != self._root or worked.update is None:
            self._accounts.over(state.value, worked.error)
        self._accounts.arrived(flight, now, accepted=worked.update is not None)
        flight.arrived = True
        concerned = self._tasks.concerned(self._tasks.task_of(flight.device), now)
        change = self._schedule.settle(self._tasks.standing, concerned, state, now, temporary=temporary)
        if worked.update is not None:
            self._patience.renew(now)
            if change.left_out:  # too old: it is over with its task
                self._accounts.over("stale")
                return change
            self._selecting.note(flight.device, worked.update.num_examples, self._cohort, now - flight.course.began)
            del self._tasks.flights[flight.device]  # its version and its ticket are needed until it is folded
            self._accepted.append(AcceptedUpdate(worked.update, flight, change.standing.accepted))
            self._continuing.accepted(self._accepted[-1])
        return change

    def _look(self) -> Change | None:
        """Renews the leases of those who are at work, and lets the schedule see what time it is."""
        now = self._agenda.now
        for name, flight in list(self._tasks.flights.items()):
            mine = self._tasks.task_of(name)
            if flight.course.is_heard(now) and mine is not None and mine.leased_until <= now:
                renewed = self._schedule.renew(self._tasks.standing, mine, now)
                if renewed is not None:
                    self._apply(renewed)
        change = self._schedule.advance(self._tasks.standing, self._tasks.concerned(None, now), now)
        # What is over already was looked at just now.
        coming = (self._due(task) for task in self._tasks.open_tasks())
        self._look_at = min((time for time in coming if time > now), default=math.inf)
        return change

    def _apply(self, change: Change) -> None:
        """Keeps what a decision changes."""
        over, out_of_time = self._tasks.apply(change)
        for flight in over:
            if not flight.arrived:
                self._accounts.broken_off(flight, self._agenda.now)
            self._end(flight)
        for name in out_of_time:
            self._rests.note(name, self._agenda.now)
        if change.following is not None:
            self._fold += 1

    def _end(self, flight: Flight) -> None:
        """Forgets what a device was at, or what came of it."""
        if flight.ticket is not None:
            self._engine.release(flight.ticket)
        self._versions.leave(flight.version)

    def _merge(self, number: int, standing: Standing) -> Round:
        """Folds what was accepted into a new version."""
        before, (accepted, why) = self._version, self._continuing.counting(self._accepted)
        fleet, rooted = apart(accepted, self._root, lambda each: each.flight.device)
        if why:
            standing = self._schedule.lose(standing, len(self._accepted) - len(accepted), why).standing
            if standing.state is FoldState.FAILED:
                return self._give_up(number, standing)
        contributions = in_order(each.contribution(before.number, self._schedule.by_acceptance) for each in fleet)
        staleness = tuple(each.read().staleness for each in contributions if self._schedule.by_acceptance)
        seed, root = fold_seed(self._settings.effective_seed, number), None if rooted is None else rooted.update
        cohort = Cohort(standing.enrolled, seed, root)
        try:
            folded = fold(self._strategy, without_residual(self._state), contributions, self._believed, cohort)
            folded.require_finite()
        except FoldError as error:
            return self._give_up(number, replace(standing, state=FoldState.FAILED, why=error.message))
        folded, _ = broadcast(self._settings, self._state, folded, before.number + 1)
        standing, self._state = self._schedule.folded(standing), folded.state
        self._continuing.fold(accepted)
        self._discard()
        self._version = self._versions.publish(before.number + 1, self._state)
        self._versions.leave(before)
        self._tasks.start_from(self._version.number)
        self._failed_in_a_row = 0
        enough = self._settings.why_over(*self._evaluated(folded)) if self._settings.patience else ""
        progress = after_fold(number, self._settings.rounds, gathering=self._fold != number, enough=enough)
        return self._round(number, standing, folded, staleness, progress)

    def _evaluated(self, folded: Folded) -> tuple[list[float], str]:
        """The metric that the run has patience with, of all folds, and whether more or less of it is better."""
        name, metrics = self._settings.patience_metric, self._plan.manifest.metrics
        value = finalise(folded.metric_sums, metrics).get(name)
        self._values += [] if value is None else [value]
        return self._values, next((each.direction for each in metrics if each.name == name), "")

    def _give_up(self, number: int, standing: Standing) -> Round:
        """Goes on after a fold that failed; what was accepted for it is discarded."""
        self._discard()
        self._failed_in_a_row += 1
        progress = after_failure(
            number,
            standing.why,
            self._settings.rounds,
            failed_in_a_row=self._failed_in_a_row,
            any_done=self._version.number > 0,
            gathering=self._fold != number,
        )
        return self._round(number, standing, None, (), progress)

    def _discard(self) -> None:
        """Gives back the memory of all that was accepted: it is part of the weights, or never will be."""
        for each in self._accepted:
            self._end(each.flight)
        self._accepted = []
        self._continuing.discard()

    def _round(
        self, number: int, standing: Standing, folded: Folded | None, staleness: tuple[int, ...], progress: Progress
    ) -> Round:
        self._next, self._over = progress.next, number
        ended, errors = self._accounts.ended, tuple(self._accounts.errors)
        return Round(
            number,
            self._version.number,
            self._agenda.now,
            folded,
            ended,
            staleness,
            standing.why,
            errors,
            self._accounts.close(self._agenda.now),
            progress.next in (Next.DONE, Next.FAILED),
            progress.why if progress.next is Next.FAILED else "",
            progress.why if progress.next is Next.DONE else "",
        )
