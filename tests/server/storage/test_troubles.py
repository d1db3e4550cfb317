"""One run's trouble is its own."""

from __future__ import annotations

import itertools
import json
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing

import pytest
from sqlalchemy import update

from edgefl.errors import StorageError
from edgefl_server import run_text
from edgefl_server.storage import (
    close_due_rounds,
    fail_damaged_runs,
    fetching_run,
    next_task,
    prune_rows,
    renew_lease,
    run_status,
    runs_summary,
    stop_run,
    sweep_outcomes,
)
from edgefl_server.storage import folding as folding_module
from edgefl_server.storage import writer as writer_module
from edgefl_server.storage.tables import RunRow
from edgefl_server.storage.troubles import Troubles


def spoil(fleet, run: str, settings: str) -> None:
    """Writes settings that this version cannot read."""
    with fleet.state.database.write() as session:
        session.objects.connection().exec_driver_sql("UPDATE runs SET settings = ? WHERE run = ?", (settings, run))


NO_JSON, NO_SETTINGS, IMPOSSIBLE = "{not json", "[]", json.dumps({"rounds": 3, "target": 1, "strategy": "magic"})
spoilt = pytest.mark.parametrize("settings", [NO_JSON, NO_SETTINGS, IMPOSSIBLE])


@spoilt
def test_a_run_that_cannot_be_read_takes_nothing_from_the_devices_of_others(
    fleet, settings: str, caplog: pytest.LogCaptureFixture
) -> None:
    (device,) = fleet.add_devices(1)
    broken = fleet.create_run(target=1, rounds=1, deadline_seconds=60)
    held = fleet.task(device)
    healthy = fleet.create_run(target=1, rounds=1, seed=8)
    spoil(fleet, broken, settings)
    task = next_task(fleet.state, device)
    assert task is not None
    assert task.run == healthy
    assert fetching_run(fleet.state, device.device, task.base_weights_hash) in (broken, healthy)
    assert fetching_run(fleet.state, device.device, "0" * 64) is None
    for _ in range(20):
        next_task(fleet.state, device)
        close_due_rounds(fleet.state)
        fail_damaged_runs(fleet.state)
        fleet.clock.now += 3
    fleet.accept(device, fleet.outcome(task))
    fleet.fold()
    assert run_status(fleet.state, healthy)["state"] == "done"
    entries = {entry["run"]: entry for entry in runs_summary(fleet.state)}
    assert set(entries) == {broken, healthy}
    assert run_status(fleet.state, broken)["troubles"]
    assert broken in run_text.runs({"runs": list(entries.values()), "warnings": []})
    assert "trouble: cannot" in run_text.status(run_status(fleet.state, broken))
    logged = [record.getMessage() for record in caplog.records if broken in record.getMessage()]
    assert len(logged) == len(set(logged)) <= 5  # once for each thing that is not possible
    sweep_outcomes(fleet.state)
    prune_rows(fleet.state)
    assert stop_run(fleet.state, broken) is True
    assert run_status(fleet.state, broken)["state"] == "stopped"
    assert held.run == broken


def test_an_exception_that_nobody_foresaw_is_contained_shown_logged_once_and_tried_again(
    fleet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (device,) = fleet.add_devices(1)
    broken = fleet.create_run(target=1, rounds=1)
    fleet.finish(device)
    others = [fleet.create_run(target=1, rounds=1, seed=seed) for seed in (8, 9)]
    for _ in others:
        fleet.finish(device)
    fold, tries = folding_module._fold, []

    def failing(state, run_id: str, number: int, moved) -> None:
        if run_id == broken:
            tries.append(state.clock())
            raise ZeroDivisionError("no\nidea")
        fold(state, run_id, number, moved)

    with monkeypatch.context() as patched:
        patched.setattr(folding_module, "_fold", failing)
        for _ in range(1000):
            fleet.fold()
            fleet.clock.now += 1
    for run in others:
        assert run_status(fleet.state, run)["state"] == "done"
    pauses = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert pauses[:5] == [5, 10, 20, 40, 60]
    assert set(pauses[5:]) == {60}
    assert caplog.text.count("ZeroDivisionError: no idea") == 1
    status = run_status(fleet.state, broken)
    assert status["history"][0]["why"] == "cannot fold yet: ZeroDivisionError: no idea"
    assert "cannot fold: ZeroDivisionError: no idea" in run_text.status(status)
    fleet.clock.now += 60
    fleet.fold()
    status = run_status(fleet.state, broken)
    assert (status["state"], status["troubles"], status["history"][0]["why"]) == ("done", [], "")


def test_what_closed_a_round_is_still_said_after_it_could_not_be_folded_for_a_while(
    fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = fleet.add_devices(2)
    run = fleet.create_run(target=2, minimum=1, rounds=1, deadline_seconds=60)
    fleet.finish(devices[0])
    fleet.clock.now += 60
    close_due_rounds(fleet.state)
    for message in ("one", "two"):
        with monkeypatch.context() as patched:
            patched.setattr(
                folding_module, "_fold", lambda *_, message=message: 1 / 0 if message == "one" else int("x")
            )
            fleet.fold()
        assert run_status(fleet.state, run)["history"][0]["why"].startswith("the deadline of 60 s passed; cannot fold")
        fleet.clock.now += 60
    fleet.fold()
    assert run_status(fleet.state, run)["history"][0]["why"] == "the deadline of 60 s passed"


def test_a_round_that_cannot_be_closed_does_not_keep_another_open(fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (fleet.create_run(target=1, deadline_seconds=60, seed=seed) for seed in (1, 2))
    with fleet.state.database.write() as session:
        session.execute(update(RunRow).where(RunRow.run == first).values(settings={"deadline_seconds": "soon"}))
    fleet.clock.now += 60
    assert close_due_rounds(fleet.state) is True
    assert run_status(fleet.state, second)["history"][0]["state"] == "failed"


def test_a_trouble_is_logged_again_only_when_it_changes(caplog: pytest.LogCaptureFixture) -> None:
    troubles = Troubles()
    for second in range(100):
        troubles.note("abc", "fold", StorageError("full" if second < 50 else "gone"), second)
    assert [record.getMessage().rpartition(" ")[2] for record in caplog.records] == ["full.", "gone."]
    assert troubles.of("abc") == ["cannot fold: gone."]
    assert troubles.of("other") == []
    troubles.clear("abc", "fold")
    assert troubles.of("abc") == []


def test_a_trouble_that_changes_all_the_time_is_logged_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    troubles = Troubles()
    for call in range(1000):
        troubles.note("", "store or read", StorageError(f"no space for uploads/{call}"), 30 + call / 50)
    assert [record.getMessage().rpartition("/")[2] for record in caplog.records] == ["0.", "500."]
    assert troubles.of("") == ["cannot store or read: no space for uploads/999."]


def test_a_database_that_is_damaged_as_a_whole_is_everybodys_trouble(make_fleet: Callable, tmp_path) -> None:
    fleet = make_fleet("a")
    (device,) = fleet.add_devices(1)
    fleet.create_run()
    fleet.state.database._engine.dispose()
    connection = sqlite3.connect(tmp_path / "a" / "server.sqlite")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    (tmp_path / "a" / "server.sqlite").write_bytes(b"no database" * 1000)
    for call in (lambda: next_task(fleet.state, device), lambda: close_due_rounds(fleet.state)):
        with pytest.raises(StorageError, match="is damaged"):
            call()


def test_while_another_program_holds_the_writer_one_call_waits_for_it_and_no_others(
    fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "_LONGEST_TURN_SECONDS", 0.05)
    first, second = fleet.add_devices(2)
    fleet.create_run(target=2)
    held, task = fleet.task(first), fleet.task(second)
    renewed: list[float | None] = []
    with closing(sqlite3.connect(fleet.state.folder / "server.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = threading.Thread(
            target=lambda: renewed.append(renew_lease(fleet.state, first.device, held.task_id)), daemon=True
        )
        waiting.start()
        while fleet.state.database._writer._writing.acquire(blocking=False):  # until it has its turn
            fleet.state.database._writer._writing.release()
        for _ in range(3):
            with pytest.raises(StorageError, match="takes too long"):
                renew_lease(fleet.state, second.device, task.task_id)
        assert fetching_run(fleet.state, second.device, task.base_weights_hash)
        assert waiting.is_alive()
        other.execute("ROLLBACK")
    waiting.join()
    assert renewed[0]
    assert renew_lease(fleet.state, second.device, task.task_id)
