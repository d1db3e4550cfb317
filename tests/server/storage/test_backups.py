from __future__ import annotations

import sqlite3
import stat
import threading
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from edgefl.errors import StorageError
from edgefl_server.storage import ServerState, audit_entries, back_up, check, remove_device, restore, run_status
from edgefl_server.storage import backups as module
from server.conftest import Fleet


def begun(fleet) -> str:
    """A run whose second round has one outcome."""
    run = fleet.create_run(rounds=3, target=2)
    for device in fleet.add_devices(2):
        fleet.finish(device)
    fleet.fold()
    fleet.finish(fleet.devices[0])
    return run


def ended(fleet, run: str) -> list[str]:
    fleet.finish(fleet.devices[1])
    fleet.fold()
    for device in fleet.devices:
        fleet.finish(device)
    fleet.fold()
    status = run_status(fleet.state, run)
    assert status["state"] == "done"
    return [each["weights_hash"] for each in status["history"]]


def opened(fleet, folder: Path) -> Fleet:
    return Fleet(ServerState(folder, fleet.clock, fleet.clock), fleet.clock, fleet.token, fleet.devices)


def test_a_copy_of_a_running_server_goes_on_to_the_same_bits(fleet, tmp_path: Path) -> None:
    run = begun(fleet)
    (fleet.state.folder / "operator.json").write_text("secret")
    made = back_up(fleet.state.folder, tmp_path / "copy")
    assert (made.missing, made.damaged, made.unknown) == ([], [], [])
    expected = ended(fleet, run)
    restored = restore(tmp_path / "copy", tmp_path / "again")
    assert (restored.files, restored.bytes) == (made.files, made.bytes)
    assert stat.S_IMODE((tmp_path / "again").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "again" / "operator.json").stat().st_mode) == 0o600
    again = opened(fleet, tmp_path / "again")
    assert ended(again, run) == expected
    assert len(audit_entries(again.state)["audit"]) == 2
    again.state.close()
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")] == []


def test_copies_fit_together_while_rounds_are_accepted_and_folded(fleet, tmp_path: Path) -> None:
    run = fleet.create_run(rounds=40, target=2)
    fleet.add_devices(2)
    over = threading.Event()

    def work() -> None:
        for _ in range(40):
            for device in fleet.devices:
                fleet.finish(device)
            fleet.fold()
        over.set()

    working = threading.Thread(target=work)
    working.start()
    made = 0
    try:
        while not over.is_set() or made == 0:
            found = back_up(fleet.state.folder, tmp_path / f"copy-{made}")
            assert (found.missing, found.damaged, found.unknown) == ([], [], [])
            made += 1
    finally:
        working.join()
    for number in range(made):
        found = check(tmp_path / f"copy-{number}")
        assert (found.missing, found.damaged, found.unknown) == ([], [], [])
        copy = opened(fleet, tmp_path / f"copy-{number}")
        assert run_status(copy.state, run)["state"] in ("active", "done")
        assert copy.state.unrecorded == {}
        copy.state.close()


def test_a_copy_whose_outcome_was_folded_meanwhile_is_made_again(fleet, tmp_path: Path, monkeypatch) -> None:
    begun(fleet)
    copy_database, made = module._copy_database, 0

    def fold_between(source: Path, target: Path) -> None:
        nonlocal made
        copy_database(source, target)
        made += 1
        if made == 1:  # accepted after the files were copied, named by the database, gone before the second look
            with closing(sqlite3.connect(target)) as connection:
                connection.execute("UPDATE outcomes SET digest = ? WHERE disposition = 'accepted'", ("0" * 64,))
                connection.commit()

    monkeypatch.setattr(module, "_copy_database", fold_between)
    found = back_up(fleet.state.folder, tmp_path / "copy")
    assert (made, found.missing) == (2, [])


def test_what_a_removed_device_had_sent_is_neither_missed_nor_copied(fleet, tmp_path: Path, monkeypatch) -> None:
    run = fleet.create_run(rounds=1, target=2, minimum=1)
    first, second = fleet.add_devices(2)
    fleet.finish(first)
    remove_device(fleet.state, first.device)
    made = back_up(fleet.state.folder, tmp_path / "copy")
    assert (made.missing, made.unknown) == ([], [])
    restore(tmp_path / "copy", tmp_path / "again")
    fleet.finish(second)
    again = opened(fleet, tmp_path / "again")
    again.finish(second)
    assert again.fold()
    assert run_status(again.state, run)["state"] == "done"
    again.state.close()

    def copied_before(source: Path, target: Path) -> None:  # removed after its file was copied
        copy_database(source, target)
        if fleet.devices:
            remove_device(fleet.state, fleet.devices.pop().device)
            copy_database(source, target)

    copy_database = module._copy_database
    fleet.devices.pop(0)
    monkeypatch.setattr(module, "_copy_database", copied_before)
    back_up(fleet.state.folder, tmp_path / "third")
    assert list((tmp_path / "third" / "outcomes").iterdir()) == []


def test_what_the_folder_lacks_is_named_and_does_not_keep_the_rest_from_being_copied(fleet, tmp_path: Path) -> None:
    begun(fleet)
    models, weights = (sorted((fleet.state.folder / store).iterdir()) for store in ("models", "weights"))
    models[0].unlink()
    weights[0].write_bytes(b"damaged")
    found = back_up(fleet.state.folder, tmp_path / "copy")
    assert found.missing == [f"models/{models[0].name}"]
    assert found.damaged == [f"weights/{weights[0].name}"]
    looked = check(fleet.state.folder)
    assert (looked.missing, looked.damaged) == (found.missing, found.damaged)
    with pytest.raises(StorageError, match="not whole: 2 files are missing, 0 damaged"):
        restore(tmp_path / "copy", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_files_that_no_row_names_are_told_and_not_copied(fleet, tmp_path: Path) -> None:
    begun(fleet)
    digest = fleet.state.outcomes.put(b"nobody knows it")
    assert check(fleet.state.folder).unknown == [f"outcomes/{digest}"]
    assert back_up(fleet.state.folder, tmp_path / "copy").unknown == []
    assert not (tmp_path / "copy" / "outcomes" / digest).exists()


def test_a_folder_of_an_older_server_is_copied_before_it_is_migrated(tmp_path: Path) -> None:
    with zipfile.ZipFile(Path(__file__).with_name("old_states") / "0007.zip") as file:
        file.extractall(tmp_path / "old")
    found = back_up(tmp_path / "old", tmp_path / "copy")
    assert (found.missing, found.damaged, found.unknown) == ([], [], [])
    ServerState(tmp_path / "copy").close()
    assert check(tmp_path / "copy").files == found.files


@pytest.mark.parametrize("function", [back_up, restore])
def test_nothing_is_overwritten_and_nothing_else_is_taken_for_a_folder(
    fleet, tmp_path: Path, function: Callable[[Path, Path], object]
) -> None:
    begun(fleet)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(StorageError, match="not empty"):
        function(fleet.state.folder, tmp_path / "full")
    (tmp_path / "none").mkdir()
    with pytest.raises(StorageError, match="no server's state folder"):
        function(tmp_path / "none", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    (tmp_path / "copy").mkdir()
    function(fleet.state.folder, tmp_path / "copy")
    assert check(tmp_path / "copy").missing == []


def test_a_copy_that_cannot_be_written_leaves_nothing(fleet, tmp_path: Path, monkeypatch) -> None:
    begun(fleet)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_copy", full)
    with pytest.raises(StorageError, match="No space left") as error:
        back_up(fleet.state.folder, tmp_path / "copy")
    assert error.value.full
    assert sorted(path.name for path in tmp_path.iterdir()) == [fleet.state.folder.name]
