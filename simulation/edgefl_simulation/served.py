"""A run on a real server, whose devices ask it over sockets: time is real, and the server decides.

The simulation says which devices ask, in the order in which they would in simulated time; as long as time decides
nothing (no deadline, nobody fails) a run ends with the same bits as one of the other engines.
"""

from __future__ import annotations

import itertools
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgefl.errors import RunError
from edgefl_device_runtime.training.threads import physical_cores
from edgefl_server.aggregation import Folded, StrategyState, TaskSource, strategy_for
from edgefl_simulation.draws import Line
from edgefl_simulation.engines import Engine, Setup
from edgefl_simulation.engines.http_fleet import HttpFleet
from edgefl_simulation.engines.http_messages import Answer, Ask, Begin
from edgefl_simulation.engines.http_server import HttpServer
from edgefl_simulation.memories import Memories
from edgefl_simulation.plans import Checkpoint, Plan, Round
from edgefl_simulation.versions import Versions

__all__ = ["ServedRun"]

_LONGEST_WAIT = 300.0
"""Seconds without work for anybody after which a run is taken to be stuck: five times the longest pause of a device."""
_WAIT = 1.5
"""Seconds for which devices wait for work: longer than a server believes that there is none. A round is open a moment
before those who wait are told, and whoever is sent away loses its place in the line to the next one."""
_LOOK = 0.5
"""Seconds between two looks at a round that only time may end."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 2.0
_ATTEMPTS = 9


class ServedRun:
    """A run on a server of its own; it starts when it is told to, or its rounds are asked for.

    Args:
        plan: what is run.
        engine: does the evaluation.
        checkpoint: where the rounds go on; the server knows itself.
        setup: what all jobs have in common.
        folder: for the state folders of server and devices, which are gone on from.
        workers: processes with devices; 0: one for each core.

    Attributes:
        state: the newest weights; what else the strategy keeps is the server's.
        folded: each device's latest task that is part of the weights, where it has parameters of its own.
    """

    def __init__(
        self, plan: Plan, engine: Engine, checkpoint: Checkpoint, setup: Setup, folder: Path, workers: int
    ) -> None:
        self._plan, self._setup, self._folder = plan, setup, folder
        self._processes = workers or min(physical_cores(), plan.settings.cohort_size)
        self._engine = engine
        self._versions = Versions(plan, engine, strategy_for(plan.settings).demand)
        self.state = StrategyState(checkpoint.state.weights, checkpoint.state.weight_size)
        self.folded = dict(checkpoint.folded)
        self._version = self._versions.publish(checkpoint.version, self.state)
        self._rounds = checkpoint.fold
        self._memories = Memories(setup.memories)
        self._remember = bool(plan.manifest.local_parameters)
        self._server: HttpServer | None = None
        self._fleet: HttpFleet | None = None
        self._run = ""
        self._numbers: dict[str, int] = {}
        self._asked: set[int] = set()
        self._root, self._rooted = plan.root, set[int]()
        self._accepted: dict[int, dict[str, str]] = {}
        self._errors: dict[str, None] = {}

    @property
    def base(self) -> int:
        """The number of the newest weights among the engine's published vectors."""
        return self._version.base

    @property
    def source(self) -> TaskSource:
        """The part that tasks from the newest weights have in common."""
        return self._version.source

    def checkpoint(self) -> Checkpoint:
        """Says how far the run has come."""
        number = self._rounds
        return Checkpoint(self.state, self._version.number, number, number, folded=dict(self.folded))

    def begin(self) -> None:
        """Starts server and devices, which join it; see `rounds`."""
        if self._server is None:
            self._start()

    def rounds(self) -> Iterator[Round]:
        """Goes on to the end of the run; yields each round once it is over.

        Raises:
            RunError: nothing happens any more, or the server refuses something.
            RuntimeFailure: the server, or a process with devices, has died.
            EdgeflError: what `edgefl.Device` raises.
        """
        self.begin()
        server, fleet = self._server, self._fleet
        assert server is not None
        assert fleet is not None
        ended = False
        while True:
            status = server.status(self._run)
            for entry in status["history"][self._rounds :]:
                if entry["state"] not in ("done", "failed"):
                    break
                ended = True
                yield self._ended(server, fleet, entry, status)
            if status["state"] != "active":
                if self._rounds < self._plan.settings.rounds and not ended:
                    raise RunError(f"The run has {status['state']} before: {status['why']}.")
                return
            if status["round"] > self._rounds:
                self._work(server, fleet, status)

    def discard(self) -> None:
        """Deletes the state folders of server and devices: nothing will be gone on from."""
        self.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def close(self) -> None:
        """Ends server and devices."""
        for each in (self._fleet, self._server):
            if each is not None:
                each.close()
        self._fleet = self._server = None

    def _start(self) -> None:
        plan = self._plan
        self._numbers = {name: number for number, name in enumerate(plan.fleet.names)}
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        server = self._server = HttpServer(self._folder / "server")
        begin = Begin(
            server.url,
            plan.population,
            server.invite(plan.population),
            self._folder / "devices",
            self._setup.tables,
            plan.minimum_examples,
            self._setup.runtime,
            secrets.token_hex(16),
        )
        fleet = self._fleet = HttpFleet(begin, self._processes)
        known = server.runs()
        if known:
            self._run = known[0]
            self._look_back(server, fleet)
        else:
            # Strategies count the devices of the population: all join before there is work.
            for device in range(len(plan.fleet)):
                self._ask(fleet, device, 0.0)
            while self._asked:
                self._take(fleet.answers(_LOOK))
            model = self._setup.model.read_bytes()
            # The strategy's hyperparameters stand beside the others as well.
            settings = {name: each for name, each in plan.settings.to_json().items() if name != "hyperparameters"}
            self._run = server.create_run(plan.population, settings, model)

    def _look_back(self, server: HttpServer, fleet: HttpFleet) -> None:
        """Finds which tasks were accepted since the checkpoint, where that has to be known."""
        if not self._remember:
            return
        for cohort in range(self._rounds + 1, server.status(self._run)["round"] + 1):
            for device, attempt in itertools.product(self._plan.fleet.names, range(1, _ATTEMPTS + 1)):
                task_id = f"{self._run}-{cohort:06d}-{device}-{attempt:03d}"
                if fleet.memory(device, self._run, task_id) is not None:
                    self._note(device, cohort, task_id)

    def _ask(self, fleet: HttpFleet, device: int, wait: float) -> None:
        self._asked.add(device)
        fleet.ask(Ask(self._plan.fleet.names[device], self._plan.rows(device), wait))

    def _take(self, answers: Sequence[Answer]) -> None:
        """Notes what devices are through with."""
        for answer in answers:
            self._asked.discard(self._numbers[answer.device])
            if answer.error:
                self._errors[answer.error] = None
            if answer.result == "accepted":
                cohort = int(answer.task_id.removeprefix(f"{self._run}-").partition("-")[0])
                self._note(answer.device, cohort, answer.task_id)

    def _note(self, device: str, cohort: int, task_id: str) -> None:
        if self._numbers[device] == self._root:
            self._rooted.add(cohort)
        else:
            self._accepted.setdefault(cohort, {})[device] = task_id

    def _work(self, server: HttpServer, fleet: HttpFleet, status: dict[str, Any]) -> None:
        """Has devices ask for work until a round is over.

        As many ask as there are places: the first of the line, and for each that has no outcome the next one.
        """
        settings, devices, cohort = self._plan.settings, self._plan.devices, status["round"]
        done = self._accepted.setdefault(cohort, {})
        # Before this process began, which is not told by whom.
        before = max(0, status["history"][cohort - 1]["outcomes"]["accepted"] - len(done))
        line = Line(devices, settings.effective_seed, cohort)
        in_vain, heard, pause = 0, time.monotonic(), _FIRST_PAUSE
        while status["state"] == "active" and status["round"] == cohort:
            if self._root is not None and self._root not in self._asked and cohort not in self._rooted:
                self._ask(fleet, self._root, _WAIT)
            places = settings.cohort_size - before - len(done) - len(self._asked - {self._root})
            for device in itertools.islice(line, devices):
                if places <= 0:
                    break
                if device not in self._asked and self._plan.fleet.names[device] not in done:
                    self._ask(fleet, device, _WAIT)
                    places -= 1
            enough = before + len(done) >= settings.target and (self._root is None or cohort in self._rooted)
            answers = [] if enough else fleet.answers(_LOOK)
            self._take(answers)
            worked = sum(bool(each.task_id) for each in answers)
            if worked:
                in_vain, heard, pause = 0, time.monotonic(), _FIRST_PAUSE
            else:
                in_vain += max(1, len(answers))
            if enough or in_vain >= devices:  # the server folds, or has work for nobody yet
                time.sleep(pause)
                in_vain, pause = 0, min(2 * pause, _LONGEST_PAUSE)
            self._check_hope(time.monotonic() - heard, cohort)
            if not worked or before + len(done) >= settings.target:
                status = server.status(self._run)

    def _check_hope(self, waited: float, cohort: int) -> None:
        if waited > max(_LONGEST_WAIT, self._plan.settings.effective_task_seconds):
            raise RunError(
                f"Round {cohort} has had no work for anybody for {waited:,.0f} s.",
                hint=f"Devices said: {' / '.join(self._errors)}" if self._errors else "Give it a deadline.",
            )

    def _ended(self, server: HttpServer, fleet: HttpFleet, entry: dict[str, Any], status: dict[str, Any]) -> Round:
        number, done = int(entry["round"]), entry["state"] == "done"
        self._rounds = number
        accepted = self._accepted.pop(number, {})
        folded = None
        if done:
            vector = np.frombuffer(server.weights(self._run, number), "<f4").astype(np.float32, copy=False)
            self.state = StrategyState(vector, self.state.weight_size)
            before, self._version = self._version, self._versions.publish(self._version.number + 1, self.state)
            self._versions.leave(before)
            folded = Folded(self.state, entry["num_examples"], entry["metric_sums"], entry["diagnostics"])
            self._remember_all(fleet, accepted)
        outcomes = {name: entry["outcomes"][name] for name in ("declined", "failed")}
        outcomes["done"] = sum(entry["outcomes"][name] for name in ("accepted", "folded", "discarded", "damaged"))
        errors, self._errors = tuple(self._errors), {}
        return Round(
            number,
            self._version.number,
            None,
            folded,
            {name: count for name, count in outcomes.items() if count},
            (),
            entry["why"],
            errors,
            None,
            status["state"] != "active" or number == self._plan.settings.rounds,
            status["why"] if status["state"] == "failed" and number == status["round"] else "",
            status["why"] if status["state"] == "done" and number == status["round"] else "",
        )

    def _remember_all(self, fleet: HttpFleet, accepted: dict[str, str]) -> None:
        """Copies what devices keep for themselves to where the evaluation looks for it."""
        if not self._remember:
            return
        for device, task_id in accepted.items():
            packed = fleet.memory(device, self._run, task_id)
            if packed is not None:
                self._memories.put(task_id, packed)
                self.folded[device] = task_id
