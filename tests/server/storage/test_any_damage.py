"""Whatever happens to a state folder: one clear error or a server that goes on, and no accepted outcome is lost."""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from edgefl.errors import EdgeflError
from edgefl_server import run_text
from edgefl_server.storage import (
    ServerState,
    close_due_rounds,
    fail_damaged_runs,
    fold_pending,
    next_task,
    prune_rows,
    run_status,
    runs_summary,
    sweep_outcomes,
)


@pytest.fixture
def used(make_fleet: Callable, tmp_path: Path) -> tuple[Path, list]:
    """Runs in every state, with accepted, folded, noted and discarded outcomes."""
    fleet = make_fleet("state")
    devices = fleet.add_devices(3)
    fleet.create_run(target=2, rounds=1)
    for device in devices[:2]:
        fleet.finish(device)
    fleet.fold()
    fleet.create_run(target=3, minimum=1, rounds=2, strategy="scaffold", deadline_seconds=1000)
    for device in devices[:2]:
        fleet.finish(device)
    fleet.create_run(target=1, rounds=3, seed=9)
    fleet.finish(devices[2])  # of the second run: its round is to be folded
    fleet.state.close()
    return tmp_path / "state", devices


def damaged(path: Path, chance: random.Random) -> str:
    data = bytearray(path.read_bytes())
    kind = chance.choice(["gone", "empty", "cut", "flip", "zeros", "noise"])
    if kind == "gone":
        path.unlink()
        return kind
    if kind == "empty":
        data.clear()
    elif kind == "cut":
        del data[chance.randrange(len(data) or 1) :]
    elif data:
        start = chance.randrange(len(data))
        end = min(len(data), start + chance.choice([1, 20, 5000]))
        for index in range(start, end):
            data[index] = {"flip": data[index] ^ 1 << chance.randrange(8), "zeros": 0}.get(kind, chance.randrange(256))
    path.write_bytes(bytes(data))
    return kind


def survive(folder: Path, devices: list, told: list[str]) -> None:
    """What a server does, and what is asked of it; only errors with a cause may come out."""
    now = [1_000_000.0]
    state = ServerState(folder, lambda: now[0], lambda: now[0])
    calls: list[Callable[[], object]] = [
        lambda: sweep_outcomes(state),
        lambda: close_due_rounds(state),
        lambda: fail_damaged_runs(state),
        lambda: fold_pending(state),
        *(lambda device=device: next_task(state, device) for device in devices),
        lambda: run_text.runs({"runs": runs_summary(state), "warnings": []}),
        lambda: [run_text.status(run_status(state, entry["run"])) for entry in runs_summary(state)],
        lambda: prune_rows(state),
    ]
    try:
        for _ in range(3):
            for call in calls:
                try:
                    call()
                except EdgeflError as error:
                    told.append(str(error))
            now[0] += 600
    finally:
        state.close()


def dispositions(folder: Path, digest: str) -> list[str]:
    connection = sqlite3.connect(folder / "server.sqlite")
    rows = connection.execute("SELECT disposition FROM outcomes WHERE digest = ?", (digest,)).fetchall()
    connection.close()
    return [each for (each,) in rows]


def check(used: tuple[Path, list], tmp_path: Path, cases: range) -> None:
    folder, devices = used
    outcomes = {path.name: path.read_bytes() for path in (folder / "outcomes").iterdir()}
    assert len(outcomes) == 3
    for case in cases:
        chance = random.Random(case)
        copy = tmp_path / f"copy{case}"
        shutil.copytree(folder, copy)
        files = sorted(path for path in copy.rglob("*") if path.is_file() and path.name != "lock")
        # The database is hit in every other case: it decides about everything else.
        hit = [copy / "server.sqlite"] if case % 2 else chance.sample(files, chance.randint(1, 3))
        what = [(path.name, damaged(path, chance)) for path in hit]
        told: list[str] = []
        refused = True
        with contextlib.suppress(EdgeflError):
            survive(copy, devices, told)
            refused = False
        assert not [line for line in told if len(line.splitlines()) > 1], what
        for name, data in outcomes.items():
            if copy / "outcomes" / name not in hit:
                kept = [path for path in (copy / "outcomes" / name, copy / "orphans" / name) if path.exists()]
                if kept or refused:
                    assert [path.read_bytes() for path in kept] == [data], what
                else:
                    assert dispositions(copy, name) == ["folded"], what
        shutil.rmtree(copy)


def test_a_damaged_state_folder_is_refused_or_goes_on(used: tuple[Path, list], tmp_path: Path) -> None:
    check(used, tmp_path, range(60))


@pytest.mark.slow
def test_a_thousand_damaged_state_folders_are_refused_or_go_on(used: tuple[Path, list], tmp_path: Path) -> None:
    check(used, tmp_path, range(1000, 2000))
