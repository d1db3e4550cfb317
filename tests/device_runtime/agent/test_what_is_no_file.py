"""A pipe or a folder lies where the device keeps a file: nothing waits for it, and a cache is mended."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from pathlib import Path

import pytest

from edgefl.errors import StorageError

_PATIENCE = 30.0
"""Seconds after which a thread that should have ended is taken to wait for ever."""


def replace(path: Path, by: str) -> None:
    """Puts something else in the place of a file."""
    path.unlink(missing_ok=True)
    os.mkfifo(path) if by == "pipe" else (path / "within").mkdir(parents=True)


def step(rig, device=None) -> object:
    """What comes of one more task; an error of edgefl is a result, too."""
    found: list[object] = []

    def work() -> None:
        try:
            with contextlib.nullcontext(device) if device else contextlib.closing(rig.device()) as one:
                found.append(one.step().result)
        except StorageError as error:
            found.append(error)

    rig.server.tasks = [rig.task(task_id="r-2-d")]
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    assert found, "it waits for ever"
    return found[0]


@pytest.mark.parametrize("by", ["pipe", "folder"])
@pytest.mark.parametrize("cache", ["models", "weights"])
def test_what_is_no_file_in_the_cache_costs_a_download(rig, cache, by):
    rig.server.tasks = [rig.task()]
    device = rig.device()
    assert device.step().result == "accepted"
    device.close()
    (kept,) = (rig.folder / "state" / "cache" / cache).iterdir()
    replace(kept, by)
    replace(kept.with_name(f"{kept.name}.part"), by)
    assert step(rig) == "accepted"
    assert kept.is_file()


@pytest.mark.parametrize("name", ["enrolment.json", "work.json", "trials.json", "status.json"])
def test_a_pipe_in_the_place_of_a_note_counts_as_damage(rig, name):
    device = rig.device()
    device.step()
    device.close()
    replace(rig.folder / "state" / name, "pipe")
    assert step(rig) == "accepted"


@pytest.mark.parametrize("name", ["identity.json", "outcome.message"])
def test_a_pipe_in_the_place_of_what_cannot_be_replaced_is_an_error(rig, name):
    device = rig.device()
    device.step()
    device.close()
    replace(rig.folder / "state" / name, "pipe")
    error = step(rig)
    assert isinstance(error, StorageError)
    assert f"{name}: it is no file" in str(error)


def test_a_pipe_in_the_place_of_the_lock_keeps_nobody(rig):
    rig.device().close()
    replace(rig.folder / "state" / "lock", "pipe")
    assert step(rig) == "accepted"
    shutil.rmtree(rig.folder / "state")
