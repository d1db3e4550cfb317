"""What lies in a state folder fits together, or the server does not touch it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from edgefl.errors import FormatVersionError, StorageError
from edgefl.wire.messages import Reason
from edgefl_server.aggregation import RunSettings
from edgefl_server.storage import (
    ServerState,
    accept_outcome,
    close_due_rounds,
    create_run,
    fail_damaged_runs,
    fold_round,
    look_at_outcome,
    run_status,
    settle_folds,
    stop_run,
    sweep_outcomes,
    warnings,
)
from edgefl_server.storage import folder as folder_module
from edgefl_server.storage.sqlite import SqliteDatabase
from edgefl_server.storage.tables import FolderRow
from model_files import make_model_file

SQLITES_OWN = ("lock", "server.sqlite-wal", "server.sqlite-shm")


def content(folder: Path, leaving_out: tuple[str, ...] = SQLITES_OWN) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in leaving_out
    }


@pytest.fixture
def used(make_fleet: Callable, tmp_path: Path) -> Path:
    """A folder with a run that has accepted an outcome."""
    fleet = make_fleet("state")
    (device,) = fleet.add_devices(1)
    fleet.create_run(target=2)
    fleet.finish(device)
    fleet.state.close()
    return tmp_path / "state"


def lose(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def empty_tables(path: Path) -> None:
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("VACUUM")
    connection.close()


def anothers(path: Path) -> None:
    path.unlink()
    ServerState(path.parent.parent / "other").close()
    shutil.copy(path.parent.parent / "other" / "server.sqlite", path)


@pytest.mark.parametrize("happens", [lose, empty, empty_tables, anothers])
@pytest.mark.parametrize("marked", [True, False])
def test_a_folder_without_its_database_is_refused_and_nothing_in_it_is_touched(
    used: Path, happens: Callable[[Path], None], marked: bool
) -> None:
    if not marked:
        if happens is anothers:
            pytest.skip("a folder of before there were ids cannot tell")
        (used / "folder.json").unlink()
    happens(used / "server.sqlite")
    before = content(used)
    for _ in range(2):
        with pytest.raises(StorageError, match=r"server\.sqlite") as refused:
            ServerState(used)
        assert "backup" in str(refused.value)
        assert "\n" not in str(refused.value)
    assert content(used) == before
    assert any(name.startswith("outcomes/") for name in before)


def test_a_database_put_back_goes_on(used: Path, tmp_path: Path, make_fleet: Callable) -> None:
    shutil.copytree(used, tmp_path / "backup")
    (used / "server.sqlite").unlink()
    with pytest.raises(StorageError):
        ServerState(used)
    shutil.copy(tmp_path / "backup" / "server.sqlite", used / "server.sqlite")
    state = ServerState(used)
    sweep_outcomes(state)
    assert len(list(state.outcomes)) == 1
    state.close()


def older_database(fleet, folder: Path, run: str) -> bytes:
    """What `server.sqlite` was after the first round of a run; the second one is folded since."""
    (device,) = fleet.devices
    fleet.finish(device)
    fleet.fold()
    old = (folder / "server.sqlite").read_bytes()
    fleet.finish(device)
    fleet.fold()
    assert run_status(fleet.state, run)["round"] == 3
    return old


def test_an_older_database_put_back_alone_is_refused_and_nothing_is_touched(
    make_fleet: Callable, tmp_path: Path
) -> None:
    fleet, folder = make_fleet("state"), tmp_path / "state"
    fleet.add_devices(1)
    old = older_database(fleet, folder, fleet.create_run(target=1))
    fleet.state.close()
    newest = (folder / "server.sqlite").read_bytes()
    (folder / "server.sqlite").write_bytes(old)
    before = content(folder)
    with pytest.raises(StorageError, match="older than the files beside it") as refused:
        ServerState(folder)
    assert "newest server.sqlite" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert content(folder) == before
    (folder / "server.sqlite").write_bytes(newest)
    ServerState(folder).close()


def test_a_whole_folder_put_back_goes_on_from_there(make_fleet: Callable, tmp_path: Path) -> None:
    fleet, folder = make_fleet("state"), tmp_path / "state"
    (device,) = fleet.add_devices(1)
    run = fleet.create_run(target=1)
    fleet.state.close()
    shutil.copytree(folder, tmp_path / "backup")
    fleet = make_fleet("state", fleet.clock)
    fleet.finish(device)
    fleet.fold()
    fleet.state.close()
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "backup", folder)
    again = make_fleet("state", fleet.clock)
    again.finish(device)
    again.fold()
    assert run_status(again.state, run)["round"] == 2


def test_a_server_killed_before_it_said_how_far_the_database_has_come_starts_again(
    make_fleet: Callable, tmp_path: Path
) -> None:
    fleet, folder = make_fleet("state"), tmp_path / "state"
    (device,) = fleet.add_devices(1)
    run = fleet.create_run(target=1)
    mark = (folder / "folder.json").read_bytes()
    fleet.finish(device)
    fleet.fold()
    assert (folder / "folder.json").read_bytes() != mark
    fleet.state.close()
    (folder / "folder.json").write_bytes(mark)
    assert run_status(make_fleet("state", fleet.clock).state, run)["round"] == 2


def test_a_fold_leaves_nothing_in_the_write_ahead_log_and_says_how_far_it_came_after_the_commit(
    make_fleet: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet, folder = make_fleet("state"), tmp_path / "state"
    (device,) = fleet.add_devices(1)
    fleet.create_run(target=1)
    fleet.finish(device)
    seen = []

    def write_mark(path: Path, mark: folder_module.Mark) -> None:
        with sqlite3.connect(f"file:{folder / 'server.sqlite'}?mode=ro&immutable=1", uri=True) as connection:
            seen.append((mark.generation, *connection.execute("SELECT generation FROM folder").fetchone()))
        folder_module.write_mark(path, mark)

    monkeypatch.setattr("edgefl_server.storage.state.write_mark", write_mark)
    fleet.fold()
    assert (folder / "server.sqlite-wal").stat().st_size == 0
    ((outside, inside),) = seen
    assert outside == inside


def test_after_a_fold_the_folder_says_how_far_it_has_come_before_any_outcome_is_deleted(
    make_fleet: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet, mark = make_fleet("state"), tmp_path / "state" / "folder.json"
    (device,) = fleet.add_devices(1)
    run = fleet.create_run(target=1)
    fleet.finish(device)
    before, told = mark.read_bytes(), list[int]()
    assert fold_round(fleet.state, run, 1, moved=lambda: told.append(fleet.task(device).cohort))
    assert told == [2]  # devices are handed the next tasks first
    assert mark.read_bytes() == before
    assert len(list(fleet.state.outcomes)) == 1
    deleted = []
    delete = fleet.state.outcomes.delete
    monkeypatch.setattr(
        fleet.state.outcomes, "delete", lambda digest: (deleted.append(mark.read_bytes() != before), delete(digest))
    )
    settle_folds(fleet.state)
    assert deleted == [True]
    assert list(fleet.state.outcomes) == []
    settle_folds(fleet.state)
    assert deleted == [True]


def _out_of_time(fleet, device):
    fleet.task(device)
    fleet.clock.now += 60
    close_due_rounds(fleet.state)


def _damaged(fleet, device):
    fleet.finish(device)
    (digest,) = fleet.state.outcomes
    fleet.state.outcomes.path(digest).write_bytes(b"")
    fleet.fold()


def _lost(fleet, device):
    (digest,) = fleet.state.weights
    fleet.state.weights.path(digest).unlink()
    fail_damaged_runs(fleet.state)


ENDS = {
    "folded": lambda fleet, device: (fleet.finish(device), fleet.fold()),
    "deadline": _out_of_time,
    "a device's refusal": lambda fleet, device: fleet.give_up(device, Reason.DATA_MISMATCH),
    "damage": _damaged,
    "lost weights": _lost,
    "stopped": lambda fleet, device: stop_run(fleet.state, "named"),
}


@pytest.mark.parametrize("end", list(ENDS))
def test_whatever_ends_a_round_the_folder_says_at_once_how_far_the_database_has_come(fleet, tmp_path, end: str) -> None:
    (device,) = fleet.add_devices(1)
    settings = RunSettings.of(rounds=9, target=1, deadline_seconds=60, max_failures=1)
    run = create_run(fleet.state, make_model_file(), "people", settings, "named")
    before = _generation(fleet)
    ENDS[end](fleet, device)
    assert run_status(fleet.state, run)["history"][0]["state"] in ("done", "failed")
    assert _generation(fleet) > before
    assert json.loads((fleet.state.folder / "folder.json").read_text())["generation"] == _generation(fleet)


def _generation(fleet) -> int:
    with fleet.state.database.read() as session:
        return session.get_one(FolderRow, 1).generation


def test_a_round_whose_entries_the_write_ahead_log_lost_is_not_played_again(
    make_fleet: Callable, tmp_path: Path
) -> None:
    fleet, folder = make_fleet("state"), tmp_path / "state"
    (device,) = fleet.add_devices(1)
    fleet.create_run(target=1)
    old = (folder / "server.sqlite").read_bytes()
    fleet.finish(device)
    fleet.state.database.checkpoint = lambda: None  # as if a long reader had kept it from being moved
    fleet.fold()
    log = bytearray((folder / "server.sqlite-wal").read_bytes())
    log[len(log) // 8] ^= 1
    shutil.copytree(folder, tmp_path / "killed")
    (tmp_path / "killed" / "server.sqlite").write_bytes(old)
    (tmp_path / "killed" / "server.sqlite-wal").write_bytes(log)
    with pytest.raises(StorageError, match="lost its latest entries"):
        ServerState(tmp_path / "killed")


def test_accepted_outcomes_that_the_database_does_not_know_are_told_and_the_server_goes_on(
    make_fleet: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fleet, folder = make_fleet("state"), tmp_path / "state"
    devices = fleet.add_devices(3)
    run = fleet.create_run(target=3)
    tasks = [fleet.task(device) for device in devices]
    fleet.state.close()
    older = (folder / "server.sqlite").read_bytes()
    fleet = make_fleet("state", fleet.clock)
    outcomes = [fleet.outcome(task) for task in tasks]
    for device, outcome in zip(devices[:2], outcomes, strict=False):
        fleet.accept(device, outcome)
    fleet.state.outcomes.put(b"no outcome")
    fleet.state.close()
    (folder / "server.sqlite").write_bytes(older)
    (folder / "folder.json").write_text(json.dumps({"id": json.loads((folder / "folder.json").read_text())["id"]}))

    state = make_fleet("state", fleet.clock).state
    assert sweep_outcomes(state).orphans == 3
    assert caplog.text.count("2 intact outcomes") == 1
    (warning,) = run_status(state, run)["warnings"]
    assert warning.startswith("2 of the outcomes that were accepted")
    assert warnings(state) == [warning]
    accept_outcome(state, devices[0].device, tasks[0].task_id, outcomes[0].encode())
    assert warnings(state)[0].startswith("1 of the outcomes")
    (state.orphans / hashlib.sha256(outcomes[1].encode()).hexdigest()).unlink()
    assert warnings(state) == []


@pytest.mark.parametrize("happens", [lose, lambda path: path.rename(path.with_name("moved")), anothers])
def test_a_database_deleted_or_replaced_while_the_server_runs_takes_no_outcome(
    make_fleet: Callable, tmp_path: Path, happens: Callable[[Path], None]
) -> None:
    fleet, path = make_fleet("state"), tmp_path / "state" / "server.sqlite"
    sent, open_ = fleet.add_devices(2)
    fleet.create_run(target=2)
    accepted = fleet.outcome(fleet.task(sent))
    fleet.accept(sent, accepted)
    outcome = fleet.outcome(fleet.task(open_))
    mark = (tmp_path / "state" / "folder.json").read_bytes()
    happens(path)
    for device, each in ((open_, outcome), (sent, accepted)):
        with pytest.raises(StorageError, match="while the server runs"):
            fleet.accept(device, each)
    digest = hashlib.sha256(accepted.encode()).hexdigest()
    with pytest.raises(StorageError, match="while the server runs"):
        look_at_outcome(fleet.state, sent.device, accepted.task_id, digest)
    fleet.state.close()
    assert (tmp_path / "state" / "folder.json").read_bytes() == mark
    with pytest.raises(StorageError):
        ServerState(tmp_path / "state")


@pytest.mark.parametrize("before", [True, False])
def test_a_start_on_a_full_disk_answers_with_what_is_there(
    used: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    full = StorageError("Could not write: No space left on device.", full=True)

    def no_space(*arguments: object, **settings: object) -> None:
        raise full

    orphan = used / "outcomes" / hashlib.sha256(b"orphan").hexdigest()
    orphan.write_bytes(b"orphan")
    with monkeypatch.context() as patched:
        if before:
            patched.setattr(SqliteDatabase, "write", no_space)
        patched.setattr(SqliteDatabase, "checkpoint", no_space)
        patched.setattr("edgefl_server.storage.state.write_mark", no_space)
        patched.setattr("edgefl_server.storage.tidying.put_aside", no_space)
        state = ServerState(used)
        assert sweep_outcomes(state).deleted == 0
        assert any("No space left" in each for each in warnings(state))
        state.close()
    assert orphan.exists()
    state = ServerState(used)
    assert sweep_outcomes(state).orphans == 1
    state.close()


def test_a_folder_of_before_there_were_ids_is_adopted(used: Path) -> None:
    (used / "folder.json").unlink()
    ServerState(used).close()
    identity = json.loads((used / "folder.json").read_text())["id"]
    ServerState(used).close()
    assert json.loads((used / "folder.json").read_text())["id"] == identity
    connection = sqlite3.connect(used / "server.sqlite")
    assert connection.execute("SELECT folder FROM folder").fetchall() == [(identity,)]
    connection.close()


@pytest.mark.parametrize("moment", ["before the database", "before the id", "after the id"])
def test_a_new_folder_whose_first_start_was_killed_is_taken_into_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    class Crash(BaseException):
        pass

    def crash(*arguments: object) -> None:
        raise Crash

    def write_and_crash(*arguments: object) -> None:
        folder_module.write_mark(*arguments)  # type: ignore[arg-type]
        raise Crash

    target = "SqliteDatabase" if moment == "before the database" else "write_mark"
    with monkeypatch.context() as patched:
        patched.setattr(f"edgefl_server.storage.state.{target}", write_and_crash if "after" in moment else crash)
        with pytest.raises(Crash):
            ServerState(tmp_path / "state")
    ServerState(tmp_path / "state").close()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"id": 7}',
        '{"id": "%s", "generation": "9"}' % ("a" * 32),
        '{"id": "../x"}',
        "\udcff",
        "[" * 100000,
    ],
)
def test_a_damaged_id_is_one_clear_line(used: Path, text: str) -> None:
    (used / "folder.json").write_bytes(text.encode(errors="surrogateescape"))
    before = content(used)
    with pytest.raises(StorageError, match=r"folder\.json is damaged"):
        ServerState(used)
    assert content(used) == before


@pytest.mark.parametrize("name", ["folder.json", "lock", f"orphans/{'a' * 64}"])
def test_no_start_waits_for_a_pipe_in_the_place_of_a_file(used: Path, name: str) -> None:
    (used / name).parent.mkdir(exist_ok=True)
    (used / name).unlink(missing_ok=True)
    os.mkfifo(used / name)
    said: list[str] = []

    def start() -> None:
        try:
            state = ServerState(used)
            sweep_outcomes(state)
            state.close()
            said.append("started")
        except StorageError as error:
            said.append(error.message)

    thread = threading.Thread(target=start, daemon=True)
    thread.start()
    thread.join(30)
    assert said == [f"Could not read {used / name}: it is no file." if name == "folder.json" else "started"]


def test_a_newer_database_is_one_clear_line_and_stays_as_it_is(used: Path) -> None:
    connection = sqlite3.connect(used / "server.sqlite")
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    before = content(used)
    with pytest.raises(FormatVersionError, match="newer edgefl") as refused:
        ServerState(used)
    assert "Update edgefl" in str(refused.value)
    assert content(used) == before


def overwrite_pages(data: bytes) -> bytes:
    return data[:8192] + b"\x5a" * (len(data) - 8192)


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], overwrite_pages, lambda data: b"x" * 5000])
def test_a_damaged_database_is_said_to_be_damaged_and_nothing_is_touched(used: Path, damage: Callable) -> None:
    path = used / "server.sqlite"
    path.write_bytes(damage(path.read_bytes()))
    before = content(used)
    with pytest.raises(StorageError, match="is damaged") as refused:
        ServerState(used)
    assert "backup" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not refused.value.full
    assert content(used) == before


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    connection = sqlite3.connect(folder / "server.sqlite")
    connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.close()
    with pytest.raises(StorageError, match="not the database of an edgefl server"):
        ServerState(folder)


def test_a_database_that_may_not_be_written_is_one_true_line(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "db.sqlite")
    with database.read() as session:
        session.objects.connection().exec_driver_sql("PRAGMA query_only = ON")
    with pytest.raises(StorageError, match="readonly") as refused, database.write() as session:
        session.objects.connection().exec_driver_sql("CREATE TABLE x (y)")
    assert "read-only" in str(refused.value)
    assert not refused.value.full
    database.close()


@pytest.mark.parametrize("names", [("uploads/photo.jpg",), ("notes.txt",), ("models/mine.keras", "a", "b", "c", "d")])
def test_a_folder_of_somebody_elses_files_is_refused_and_nothing_in_it_is_touched(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    folder = tmp_path / "home"
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    modes = {path: path.stat().st_mode for path in (folder, *folder.rglob("*"))}
    folder.chmod(0o755)
    modes[folder] = folder.stat().st_mode
    with pytest.raises(StorageError) as refused:
        ServerState(folder)
    assert str(folder) in str(refused.value)
    assert "\n" not in str(refused.value)
    found = {path: path.stat().st_mode for path in (folder, *folder.rglob("*")) if path.name != "lock"}
    assert found == modes
    assert all((folder / name).read_text() == "mine" for name in names)


def test_an_empty_disk_of_its_own_is_taken_into_use(tmp_path: Path) -> None:
    (tmp_path / "disk" / "lost+found").mkdir(parents=True)
    ServerState(tmp_path / "disk").close()


def test_an_open_folder_is_closed_to_others_and_so_are_the_secrets_in_it(used: Path) -> None:
    opened = [used, used / "outcomes", used / "server.sqlite"]
    for path in opened:
        path.chmod(0o755)
    ServerState(used).close()
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in opened} == {0}


def test_an_open_folder_of_somebody_else_is_refused(used: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used.chmod(0o755)

    def forbidden(self: Path, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", forbidden)
    with pytest.raises(StorageError, match="open to other users") as refused:
        ServerState(used)
    assert "chmod go=" in str(refused.value)


def test_files_that_no_row_names_are_put_aside_listed_and_never_deleted(
    used: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = ServerState(used)
    digests = [state.outcomes.put(data) for data in (b"one", b"two")]
    (used / "outcomes" / ".half-written.part").write_bytes(b"half")
    state.close()
    state = ServerState(used)
    swept = sweep_outcomes(state)
    assert (swept.deleted, swept.orphans) == (0, 2)
    assert sorted(path.name for path in (used / "orphans").iterdir()) == sorted(digests)
    assert all(digest in caplog.text for digest in digests)
    assert len(list((used / "outcomes").iterdir())) == 1
    assert sweep_outcomes(state).orphans == 0
    assert len(list((used / "orphans").iterdir())) == 2
    state.close()


def test_an_orphan_of_a_crash_goes_once_its_outcome_was_sent_again_and_folded(make_fleet: Callable) -> None:
    fleet = make_fleet("a")
    (device,) = fleet.add_devices(1)
    run = fleet.create_run(target=1, rounds=1)
    outcome = fleet.outcome(fleet.task(device))
    fleet.state.outcomes.put(outcome.encode())  # and the server was killed before it wrote the row
    assert sweep_outcomes(fleet.state).orphans == 1
    fleet.accept(device, outcome)
    assert sweep_outcomes(fleet.state).deleted == 0
    fleet.fold()
    assert run_status(fleet.state, run)["state"] == "done"
    assert sweep_outcomes(fleet.state).deleted == 1
    assert list(fleet.state.orphans.iterdir()) == []
