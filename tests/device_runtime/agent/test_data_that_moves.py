"""Data files that are written to, replaced or missing while a device works, and what large ones cost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import data_files
from edgefl.errors import DataError, DataNotReadyError
from edgefl.wire.messages import OutcomeStatus, Reason
from edgefl_device_runtime.agent import sources
from edgefl_device_runtime.agent.sources import open_source
from edgefl_device_runtime.training import installed_runtimes
from edgefl_device_runtime.training.file_rows import FileRows
from interpreters import each_interpreter

CHILD = Path(__file__).parents[2] / "data_in_a_child.py"
ROWS = 12_000  # of 1 kB: more than what is held in memory


@pytest.fixture(params=each_interpreter())
def any_runtime(request: pytest.FixtureRequest) -> str:
    """Each interpreter in turn, also beside TensorFlow: nothing of it runs in this process."""
    return str(request.param)


def task_on(runtime: str, model: Path, folder: Path, step: int, how: str) -> dict[str, Any]:
    random = np.random.default_rng(0)
    x = random.normal(size=(ROWS, 256)).astype(np.float32)
    np.savez(folder / "data.npz", x=x, y=random.integers(0, 5, ROWS))
    command = [sys.executable, str(CHILD), runtime, str(model), str(folder / "data.npz"), str(step), how]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr}"  # -7: killed by SIGBUS
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("step", [3, 100])
def test_a_file_that_is_written_over_in_training_ends_as_an_outcome(
    any_runtime: str, wide_file: Path, tmp_path: Path, step: int
) -> None:
    found = task_on(any_runtime, wide_file, tmp_path, step, "in place")
    assert (found["status"], found["reason"]) == ("DECLINED", "NOT_READY")
    assert "data.npz was changed while it was being read. Write a new file and rename it" in found["message"]
    assert step <= found["steps"] < ROWS / 8
    assert found["left_open"] == 0


def test_a_file_that_is_replaced_by_renaming_is_trained_on_to_the_end(wide_file: Path, tmp_path: Path) -> None:
    runtime = installed_runtimes()[0]
    replaced, left = (task_on(runtime, wide_file, tmp_path, 3, how) for how in ("renamed", "not at all"))
    assert replaced == left
    assert (left["status"], left["left_open"]) == ("DONE", 0)


def open_files(folder: Path) -> int:
    """How many files of a folder this process has open, also those that were deleted."""
    links = [str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    return sum(link.startswith(str(folder)) for link in links)


def save(path: Path, rows: int = 4) -> None:
    np.savez(path, x=np.ones((rows, 2), np.float32), y=np.zeros(rows, int))


def test_a_file_that_is_missing_for_a_moment_costs_no_round(rig: Any, tmp_path: Path) -> None:
    save(tmp_path / "d.npz")
    device = rig.device(data=str(tmp_path / "d.npz"))
    (tmp_path / "d.npz").rename(tmp_path / "away")
    rig.server.tasks = [rig.task("a")]
    device.step()
    outcome = rig.server.decoded("a")
    assert (outcome.status, outcome.reason) == (OutcomeStatus.DECLINED, Reason.NOT_READY)
    assert any("d.npz: No such file or directory. Is it being replaced?" in line for line in rig.lines)
    (tmp_path / "away").rename(tmp_path / "d.npz")
    rig.server.tasks = [rig.task("b")]
    device.step()
    assert rig.server.decoded("b").status is OutcomeStatus.DONE


def test_one_of_several_files_that_is_missing_for_a_moment_costs_no_round(tmp_path: Path) -> None:
    for name in "xy":
        np.save(tmp_path / f"{name}.npy", np.ones(3))
    source = open_source(tmp_path)
    source()
    (tmp_path / "x.npy").rename(tmp_path / "away")
    with pytest.raises(DataNotReadyError, match=r"x\.npy in the folder"):
        source()
    (tmp_path / "away").rename(tmp_path / "x.npy")
    assert set(source()) == {"x", "y"}


def test_a_file_that_is_being_written_is_not_ready_and_one_that_stays_so_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    save(path)
    path.write_bytes(path.read_bytes()[:200])
    written = path.stat().st_mtime
    with pytest.raises(DataNotReadyError, match=r"not a readable \.npz file: .* may be unfinished"):
        open_source(path, clock=lambda: written + 5)()
    with pytest.raises(DataError, match=r"not a readable \.npz file") as caught:
        open_source(path, clock=lambda: written + 60)()
    assert not isinstance(caught.value, DataNotReadyError)


def test_a_half_written_file_of_the_future_is_not_ready_until_it_has_stayed_so(tmp_path: Path) -> None:
    path, now = tmp_path / "d.npz", [1000.0]
    save(path)
    source = open_source(path, clock=lambda: 1e9, monotonic=lambda: now[0])  # a clock that was set back
    source()
    now[0] += 3600
    path.write_bytes(path.read_bytes()[:200])
    for passed in (0, 6):
        now[0] += passed
        with pytest.raises(DataNotReadyError, match="may be unfinished"):
            source()
    now[0] += 6
    with pytest.raises(DataError, match=r"not a readable \.npz file") as caught:
        source()
    assert not isinstance(caught.value, DataNotReadyError)


def test_a_folder_of_which_one_file_is_new_and_another_one_is_not_yet_costs_no_round(rig: Any, tmp_path: Path) -> None:
    folder, now = tmp_path / "data", [1000.0]
    folder.mkdir()

    def write(name: str, rows: int) -> None:
        np.save(folder / f"{name}.npy", np.ones((rows, 2), np.float32) if name == "x" else np.zeros(rows, int))

    write("x", 5)
    write("y", 5)
    device = rig.device(data=str(folder))
    device._worker._source = open_source(folder, monotonic=lambda: now[0])
    device._worker._source()
    now[0] += 3600
    write("x", 7)
    for passed, reason in ((0, Reason.NOT_READY), (11, Reason.DATA_MISMATCH)):
        now[0] += passed
        rig.server.tasks = [rig.task(f"t{passed}")]
        device.step()
        assert rig.server.decoded(f"t{passed}").reason is reason
    write("y", 7)
    rig.server.tasks = [rig.task("last")]
    device.step()
    assert rig.server.decoded("last").status is OutcomeStatus.DONE


def test_data_that_may_not_be_looked_at_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(path: Path, **options: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", forbidden)
    with pytest.raises(DataError, match=r"Cannot read the data .*d\.npz: Permission denied\."):
        open_source(tmp_path / "d.npz")


@pytest.mark.parametrize("times", [1, 99])
def test_a_file_that_changes_between_looking_and_reading_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    path = tmp_path / "d.npz"
    save(path)
    read, left = sources._held, [times]

    def slowly(found: Any) -> Any:
        arrays = read(found)
        if left[0]:
            left[0] -= 1
            save(tmp_path / "new.npz", rows=10 + left[0])
            (tmp_path / "new.npz").replace(path)
        return arrays

    monkeypatch.setattr(sources, "_held", slowly)
    if times == 1:
        assert len(open_source(path)()["x"]) == 10
    else:
        with pytest.raises(DataNotReadyError, match=r"d\.npz was changed while it was being read"):
            open_source(path)()


def test_no_file_stays_open_over_months(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_IN_MEMORY", 0)
    path = tmp_path / "d.npz"
    save(path)
    source = open_source(path)
    for number in range(20):
        assert isinstance(source()["x"], FileRows)
        if number % 3 == 0:
            save(path, rows=number + 1)
    assert open_files(tmp_path) == 0


def measured(folder: Path, model: Path, megabytes: float, form: str, runtime: str, steps: int | None) -> dict[str, Any]:
    made = folder / f"{megabytes}"
    if not made.exists():
        made.mkdir()
        data_files.write_data(made, 256, megabytes, classes=5)
        shutil.copy(model, made / "model.tflite")
    return data_files.in_a_process(made, form, runtime, steps)


def test_a_large_npz_needs_neither_memory_nor_time_for_its_size(
    wide_file: Path, tmp_path: Path, any_runtime: str
) -> None:
    small = measured(tmp_path, wide_file, 1, ".npz", any_runtime, 50)
    npz, npy = (
        min(
            (measured(tmp_path, wide_file, 64, form, any_runtime, 300) for _ in range(2)),
            key=lambda each: each["cpu_microseconds_a_step"],
        )
        for form in (".npz", ".npy")
    )
    assert npz["loss"] == npy["loss"]
    assert npz["peak_mb"] < small["peak_mb"] + 25  # mapped, and copied for every batch: 128 MB more
    assert npz["cpu_microseconds_a_step"] < 2 * npy["cpu_microseconds_a_step"]  # copied for every batch: 33 times


@pytest.mark.slow
def test_six_hundred_megabytes_of_npz_train_like_npy_in_120_megabytes(
    wide_file: Path, tmp_path: Path, any_runtime: str
) -> None:
    npz, npy = (
        [measured(tmp_path, wide_file, 600, form, any_runtime, 30_000) for _ in range(2)] for form in (".npz", ".npy")
    )
    assert max(each["peak_mb"] for each in npz + npy) <= 120
    fastest = [min(each["cpu_microseconds_a_step"] for each in found) for found in (npz, npy)]
    assert fastest[0] <= 1.3 * fastest[1]
