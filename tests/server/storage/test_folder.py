"""What lies in a state folder fits together, or the server does not touch it."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from edgefl.errors import FormatVersionError, StorageError
from edgefl_server.storage import ServerState, run_status, sweep_outcomes
from edgefl_server.storage import folder as folder_module
from edgefl_server.storage.database import Database

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
        folder_module.write_id(*arguments)  # type: ignore[arg-type]
        raise Crash

    target = "Database" if moment == "before the database" else "write_id"
    with monkeypatch.context() as patched:
        patched.setattr(f"edgefl_server.storage.state.{target}", write_and_crash if "after" in moment else crash)
        with pytest.raises(Crash):
            ServerState(tmp_path / "state")
    ServerState(tmp_path / "state").close()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"id": 7}', '{"id": "../x"}', "\udcff"])
def test_a_damaged_id_is_one_clear_line(used: Path, text: str) -> None:
    (used / "folder.json").write_bytes(text.encode(errors="surrogateescape"))
    before = content(used)
    with pytest.raises(StorageError, match=r"folder\.json is damaged"):
        ServerState(used)
    assert content(used) == before


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
    database = Database(tmp_path / "db.sqlite")
    with database.read() as session:
        session.connection().exec_driver_sql("PRAGMA query_only = ON")
    with pytest.raises(StorageError, match="readonly") as refused, database.write() as session:
        session.connection().exec_driver_sql("CREATE TABLE x (y)")
    assert "read-only" in str(refused.value)
    assert not refused.value.full
    database.close()


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
