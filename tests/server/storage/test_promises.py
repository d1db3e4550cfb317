"""What 202 promises, under anything that devices, operators, clocks and crashes can do in any order."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import select

from edgefl.algorithms import ALGORITHMS
from edgefl.errors import OutcomeRefusedError
from edgefl.wire.messages import Outcome, OutcomeStatus, Reason, Task
from edgefl_server.aggregation import Cohort, RunSettings, Update, Updates, strategy_for
from edgefl_server.aggregation.caps import count_examples
from edgefl_server.storage import (
    NotWantedError,
    ServerState,
    accept_outcome,
    authenticate,
    close_due_rounds,
    create_run,
    enrol,
    fold_pending,
    invite,
    next_task,
    prune_rows,
    renew_lease,
    run_status,
    stop_run,
    sweep_outcomes,
    weights_of_round,
)
from edgefl_server.storage.tables import OutcomeRow, RunRow, VersionRow
from fake_device import Identity, outcome_for
from model_files import make_model_file

DEVICES = 4
devices = st.integers(0, DEVICES - 1)


class Crash(BaseException):
    """Stands for kill -9: nothing after it is run."""


class Promises(RuleBasedStateMachine):
    @initialize(
        wanted=st.integers(1, 3),
        over_selection=st.sampled_from([0.0, 1.0, 2.0]),
        deadline=st.sampled_from([0.0, 100.0]),
        max_failures=st.integers(1, 5),
        strategy=st.sampled_from(["fedavg", "scaffold", "feddyn"]),
    )
    def begin(self, wanted: int, over_selection: float, deadline: float, max_failures: int, strategy: str) -> None:
        self.now = self.date = 1e6
        self.folder = Path(tempfile.mkdtemp())
        self.state = ServerState(self.folder, lambda: self.now, lambda: self.date)
        token = invite(self.state, "people")
        self.devices = []
        for index in range(DEVICES):
            identity = Identity.number(index)
            enrol(self.state, token, identity.device, identity.secret_hash, "people", {})
            self.devices.append(authenticate(self.state, identity.device, identity.secret))
        self.settings = RunSettings.of(
            rounds=4,
            target=wanted,
            minimum=1,
            over_selection=over_selection,
            deadline_seconds=deadline,
            max_failures=max_failures,
            lease_seconds=50,
            seed=5,
            strategy=strategy,
            mu=0.1 if strategy == "feddyn" else None,
        )
        self.run = create_run(self.state, make_model_file(algorithms=ALGORITHMS), "people", self.settings)
        self.tasks: dict[int, Task] = {}
        self.accepted: dict[str, Outcome] = {}
        self.told: dict[str, tuple[int, bytes]] = {}

    def teardown(self) -> None:
        if hasattr(self, "state"):
            self.state.close()
            shutil.rmtree(self.folder)

    def weights(self, digest: str) -> np.ndarray:
        return np.frombuffer(self.state.weights.get(digest), "<f4")

    def send(self, device: int, outcome: Outcome) -> None:
        data = outcome.encode()
        try:
            accept_outcome(self.state, self.devices[device].device, outcome.task_id, data)
        except NotWantedError:
            assert outcome.task_id not in self.told
            return
        except OutcomeRefusedError as error:
            assert error.reason == "conflicting_outcome"  # noqa: PT017
            assert self.told[outcome.task_id] != (device, data)
            return
        self.told[outcome.task_id] = (device, data)
        if outcome.status == OutcomeStatus.DONE:
            self.accepted[outcome.task_id] = outcome

    @rule(device=devices)
    def poll(self, device: int) -> None:
        task = next_task(self.state, self.devices[device])
        if task is not None:
            self.tasks[device] = task
            mine = [each for each in self.accepted if f"-{self.devices[device].device}-" in each]
            states = {entry["round"]: entry["state"] for entry in run_status(self.state, self.run)["history"]}
            folded = [each for each in mine if states[int(each.split("-")[1])] == "done"]
            assert task.continues == max(folded, default="")

    @rule(device=devices)
    def finish(self, device: int) -> None:
        if device in self.tasks:
            task = self.tasks[device]
            self.send(device, outcome_for(task, self.weights(task.base_weights_hash), 4))

    @rule(order=st.permutations(range(DEVICES)), fold=st.booleans())
    def work(self, order: list[int], fold: bool) -> None:
        for device in order:
            self.poll(device)
        for device in order[:3]:
            self.finish(device)
        if fold:
            fold_pending(self.state)

    @rule(device=devices, reason=st.sampled_from([Reason.BUSY, Reason.NO_DATA]))
    def give_up(self, device: int, reason: Reason) -> None:
        if device in self.tasks:
            task = self.tasks[device]
            status = OutcomeStatus.DECLINED
            self.send(device, Outcome(task.task_id, task.base_weights_hash, task.layout_hash, status, reason))

    @rule(device=devices)
    def lie(self, device: int) -> None:
        if device in self.tasks:
            task = self.tasks[device]
            outcome = outcome_for(task, self.weights(task.base_weights_hash), 4)
            self.send(device, replace(outcome, num_examples=outcome.num_examples + 1))

    @rule(choice=st.integers(0, 100))
    def repeat(self, choice: int) -> None:
        if self.told:
            task_id = sorted(self.told)[choice % len(self.told)]
            device, data = self.told[task_id]
            accept_outcome(self.state, self.devices[device].device, task_id, data)

    @rule(device=devices)
    def crash_while_sending(self, device: int) -> None:
        if device not in self.tasks:
            return
        task = self.tasks[device]
        outcome = outcome_for(task, self.weights(task.base_weights_hash), 4)
        adopt = self.state.outcomes.adopt

        def crash(file: Path, digest: str) -> None:
            adopt(file, digest)
            raise Crash

        self.state.outcomes.adopt = crash  # type: ignore[method-assign]
        with contextlib.suppress(Crash, NotWantedError, OutcomeRefusedError):
            accept_outcome(self.state, self.devices[device].device, task.task_id, outcome.encode())
        self.restart()

    @rule()
    def crash_while_folding(self) -> None:
        put = self.state.weights.put

        def crash(data: bytes) -> str:
            put(data)
            raise Crash

        self.state.weights.put = crash  # type: ignore[method-assign]
        with contextlib.suppress(Crash):
            fold_pending(self.state)
        self.restart()

    @rule()
    def restart(self) -> None:
        self.state.close()
        self.state = ServerState(self.folder, lambda: self.now, lambda: self.date)
        sweep_outcomes(self.state)

    @rule(device=devices)
    def renew(self, device: int) -> None:
        if device in self.tasks:
            renew_lease(self.state, self.devices[device].device, self.tasks[device].task_id)

    @rule(days=st.sampled_from([-400.0, -1.0, 1.0, 400.0]))
    def the_wall_clock_is_set(self, days: float) -> None:
        self.date += days * 86_400
        close_due_rounds(self.state)

    @rule()
    def tidy_up(self) -> None:
        sweep_outcomes(self.state, starting=False)
        prune_rows(self.state)

    @rule(seconds=st.sampled_from([1.0, 30.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        close_due_rounds(self.state)

    @rule()
    def fold(self) -> None:
        fold_pending(self.state)

    @rule(stop=st.integers(0, 15))
    def stop(self, stop: int) -> None:
        if stop == 0:
            stop_run(self.state, self.run)

    @invariant()
    def every_accepted_outcome_is_kept_once_and_folded_once(self) -> None:
        if not hasattr(self, "run"):
            return
        with self.state.database.read() as session:
            rows = session.scalars(select(OutcomeRow).where(OutcomeRow.status == "done")).all()
        assert {row.task_id for row in rows} == set(self.accepted)
        rounds = {entry["round"]: entry for entry in run_status(self.state, self.run)["history"]}
        fate = {"done": "folded", "failed": "discarded"}
        for row in rows:
            assert row.disposition == fate.get(rounds[row.fold]["state"], "accepted")
            if row.disposition != "folded":
                assert self.state.outcomes.path(row.digest) is not None

    @invariant()
    def the_weights_are_those_of_the_folded_outcomes_and_no_others(self) -> None:
        if not hasattr(self, "run"):
            return
        strategy = strategy_for(self.settings)
        expected = strategy.init(self.weights(weights_of_round(self.state, self.run, 0)[0]), 16)
        for entry in run_status(self.state, self.run)["history"]:
            if entry["state"] != "done":
                continue
            updates = []
            prefix = f"{self.run}-{entry['round']:06d}-"
            task_ids = sorted(each for each in self.accepted if each.startswith(prefix))
            said = [self.accepted[task_id].num_examples for task_id in task_ids]
            counted = count_examples(said, self.settings.max_examples, self.settings.max_weight_ratio).examples
            for task_id, examples in zip(task_ids, counted, strict=True):
                vectors = {section.name: section.vector() for section in self.accepted[task_id].sections}
                updates.append(Update(task_id, examples, vectors))
            assert len(updates) == entry["outcomes"]["folded"] >= 1
            expected, _ = strategy.apply(expected, Updates.of(updates), Cohort(DEVICES))
            assert self.weights(entry["weights_hash"]).tobytes() == expected.weights.tobytes()
        with self.state.database.read() as session:
            version = session.get_one(RunRow, self.run).version
            slots = session.get_one(VersionRow, (self.run, version)).slots
        kept = {name: self.weights(digest).tobytes() for name, digest in slots.items()}
        assert kept == {name: vector.tobytes() for name, vector in expected.slots.items()}


TestPromises = Promises.TestCase
TestPromises.settings = settings(
    max_examples=6, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
