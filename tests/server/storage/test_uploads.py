from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from edgefl.errors import StorageError
from edgefl_server.storage import sweep_uploads
from edgefl_server.storage.uploads import Uploads

DEVICE, TASK, DIGEST = "d" * 32, "run-000001-device-001", "a" * 64


def test_what_arrived_is_hashed_on_the_way_also_after_a_restart(tmp_path: Path) -> None:
    upload = Uploads(tmp_path).open(DEVICE, TASK, DIGEST)
    upload.write(b"one ")
    upload.write(bytearray(b"two "))
    upload.keep()
    uploads = Uploads(tmp_path)
    assert uploads.received(DEVICE, TASK, DIGEST) == 8
    again = uploads.open(DEVICE, TASK, DIGEST)
    again.write(b"three")
    assert (again.received, again.digest()) == (13, hashlib.sha256(b"one two three").hexdigest())
    assert again.path.read_bytes() == b"one two three"
    again.discard()
    assert uploads.received(DEVICE, TASK, DIGEST) == 0


def test_another_message_of_the_device_takes_the_place_of_the_first(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    for digest in (DIGEST, "b" * 64, None, "c" * 64):
        upload = uploads.open(DEVICE, TASK, digest)
        upload.write(b"x")
        upload.keep()
        assert len(list(tmp_path.iterdir())) == 1
    assert uploads.received(DEVICE, TASK, DIGEST) == 0
    assert uploads.received(DEVICE, "another-task", "c" * 64) == 0
    assert uploads.received("e" * 32, TASK, "c" * 64) == 0


def test_a_start_removes_what_nobody_can_go_on_with(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    uploads.open(DEVICE, TASK, DIGEST).write(b"kept")
    uploads.open("e" * 32, TASK, None).write(b"not announced")
    uploads.anonymous().write(b"a model")
    (tmp_path / "something").write_bytes(b"else")
    (tmp_path / f"..{TASK}.{DIGEST}").write_bytes(b"no device")
    Uploads(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{DEVICE}.{TASK}.{DIGEST}"]


def test_what_is_old_is_swept_and_what_is_arriving_is_not(tmp_path: Path) -> None:
    now = 0.0
    uploads = Uploads(tmp_path, lambda: now)
    uploads.open(DEVICE, TASK, DIGEST).keep()
    arriving = uploads.open("e" * 32, "ended", DIGEST)
    uploads.sweep({TASK})
    assert len(list(tmp_path.iterdir())) == 2
    now = 3601.0
    uploads.sweep({TASK})
    assert [path.name for path in tmp_path.iterdir()] == [arriving.path.name]
    arriving.keep()
    uploads.sweep({TASK})
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_asks_which_tasks_are_still_open(fleet) -> None:
    first, second = fleet.add_devices(2)
    fleet.create_run(target=1, over_selection=2)
    mine, late = fleet.task(first), fleet.task(second)
    fleet.state.uploads.open(second.device, late.task_id, DIGEST).keep()
    sweep_uploads(fleet.state)
    assert fleet.state.uploads.tasks() == [late.task_id]
    fleet.accept(first, fleet.outcome(mine))
    sweep_uploads(fleet.state)
    assert fleet.state.uploads.tasks() == []
    assert list((fleet.state.folder / "uploads").iterdir()) == []


def test_a_folder_that_cannot_be_used_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "uploads").write_text("a file")
    with pytest.raises(StorageError, match="uploads"):
        Uploads(tmp_path / "uploads")


@pytest.mark.parametrize("restarted", [True, False])
def test_a_folder_under_the_name_of_an_upload_is_dropped(tmp_path: Path, restarted: bool) -> None:
    uploads = Uploads(tmp_path)
    upload = uploads.open(DEVICE, TASK, DIGEST)
    upload.write(b"a part")
    upload.keep()
    upload.path.unlink()
    (upload.path / "more").mkdir(parents=True)
    uploads = Uploads(tmp_path) if restarted else uploads
    assert uploads.received(DEVICE, TASK, DIGEST) == 0
    again = uploads.open(DEVICE, TASK, DIGEST)
    again.write(b"whole")
    assert again.read() == b"whole"


def test_a_folder_of_uploads_that_was_removed_is_made_again(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path / "uploads")
    for begin in (lambda: uploads.open(DEVICE, TASK, DIGEST), uploads.anonymous):
        shutil.rmtree(tmp_path / "uploads")
        upload = begin()
        upload.write(b"whole")
        assert upload.read() == b"whole"
