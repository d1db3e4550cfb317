from __future__ import annotations

import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import alembic.command
import alembic.config
import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from edgefl.errors import FormatVersionError, StorageError
from edgefl_server.storage import ServerState, migrations, run_status
from edgefl_server.storage.sqlite import SqliteDatabase
from edgefl_server.storage.tables import CohortRow, InvitationRow, RunRow, Table, VersionRow


def test_two_servers_cannot_share_a_state_folder(tmp_path: Path) -> None:
    first = ServerState(tmp_path / "state")
    with pytest.raises(StorageError, match="Another server"):
        ServerState(tmp_path / "state")
    first.close()
    ServerState(tmp_path / "state").close()


def test_the_folder_is_for_its_owner_only(fleet, tmp_path: Path) -> None:
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Could not open"):
        ServerState(tmp_path / "file" / "state")


def test_a_file_that_is_no_database_is_one_clear_error_and_frees_the_lock(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "server.sqlite").write_bytes(b"this is not a database" * 100)
    for _ in range(2):
        with pytest.raises(StorageError, match="not a database"):
            ServerState(folder)


def test_the_migrations_make_exactly_the_tables(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "db.sqlite")
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'db.sqlite'}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Table.metadata) == []
        assert context.get_current_revision() is not None
    engine.dispose()
    database.close()


def test_commits_reach_the_disk_before_they_return(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "db.sqlite")
    with database.read() as session:
        assert session.scalar(sqlalchemy.text("PRAGMA synchronous")) == 2
        assert session.scalar(sqlalchemy.text("PRAGMA journal_mode")) == "wal"
    database.close()


def test_a_transaction_that_raises_leaves_nothing(fleet) -> None:
    def count() -> int:
        with fleet.state.database.read() as session:
            return len(session.scalars(sqlalchemy.select(InvitationRow)).all())

    before = count()
    with pytest.raises(RuntimeError), fleet.state.database.write() as session:  # noqa: PT012
        session.add(InvitationRow(token_hash="f" * 64, population="p", created_at=0.0))
        session.flush()
        raise RuntimeError
    assert count() == before


def test_a_full_database_disk_is_a_storage_error_and_leaves_nothing(fleet) -> None:
    rows = [InvitationRow(token_hash=f"{index:064x}", population="p" * 60, created_at=0.0) for index in range(2000)]
    with fleet.state.database.write() as session:
        session.execute(sqlalchemy.text("PRAGMA max_page_count = 1"))
    with pytest.raises(StorageError, match="full"), fleet.state.database.write() as session:
        session.objects.add_all(rows)
    with fleet.state.database.read() as session:
        assert len(session.scalars(sqlalchemy.select(InvitationRow)).all()) == 1


def test_what_was_kept_is_there_after_a_restart(make_fleet: Callable) -> None:
    fleet = make_fleet("a")
    run = fleet.create_run()
    fleet.state.close()
    again = make_fleet("a")
    assert run_status(again.state, run)["state"] == "active"


@pytest.mark.parametrize("tables", ["0001", "0005", "0006"])
def test_a_database_of_the_older_form_is_refused_with_what_to_do_and_stays_as_it_is(make_fleet, tables: str) -> None:
    fleet = make_fleet("old")
    with fleet.state.database.write() as session:
        session.execute(sqlalchemy.text(f"UPDATE alembic_version SET version_num = '{tables}'"))
    fleet.state.close()
    path = fleet.state.folder / "server.sqlite"
    before = path.read_bytes()
    with pytest.raises(FormatVersionError, match="older edgefl") as refused:
        ServerState(fleet.state.folder)
    assert "Finish its runs with the older edgefl, or choose another state folder." in str(refused.value)
    assert "\n" not in str(refused.value)
    assert path.read_bytes() == before


def test_a_database_of_before_shares_and_lineage_is_migrated_with_what_it_had(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite"
    _migrate(path, "0007")
    values = {
        "runs": {
            **{"run": "r", "name": "", "population": "people", "state": "active", "why": "", "settings": "{}"},
            **{"model_hash": "m", "graph_hash": "g", "layout_hash": "l", "weight_size": 1, "statistic_size": 0},
            **{"metrics": "[]", "limits": "{}", "version": 1, "cohort": 2, "fold": 2, "accepted": 3},
            **{"created_at": 1.0, "created_clock": 1.0},
        },
        "cohorts": {
            **{"run": "r", "number": 2, "opened_clock": 1.0, "open": 0, "done": 0},
            **{"failed_devices": 0, "failed_attempts": 0},
        },
    }
    with closing(sqlite3.connect(path)) as connection:
        for table, row in values.items():
            marks = ", ".join("?" * len(row))
            connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))
        for number in (0, 1):
            connection.execute("INSERT INTO versions VALUES ('r', ?, ?, 'w', '{}')", (number, number))
        connection.commit()
    database = SqliteDatabase(path)
    with database.read() as session:
        run, cohort = session.row(RunRow, run="r"), session.row(CohortRow, run="r", number=2)
        versions = [session.row(VersionRow, run="r", number=number) for number in (0, 1)]
    assert (run.served, run.paused_clock, run.accepted) == (3, None, 3)
    assert cohort.admits in ({}, "{}")
    assert [(each.parent, each.made_at) for each in versions] == [(None, None), (0, None)]
    database.close()
    _migrate(path, "0007", down=True)


def _migrate(path: Path, revision: str, *, down: bool = False) -> None:
    config = alembic.config.Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        (alembic.command.downgrade if down else alembic.command.upgrade)(config, revision)
    engine.dispose()
