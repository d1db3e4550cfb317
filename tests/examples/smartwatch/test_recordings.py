from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from edgefl.errors import DataError
from edgefl_simulation.data import smartwatch
from examples.smartwatch import recordings
from examples.smartwatch.recordings import Recording, Split, load_recordings, pooled, recordings_file, split


@pytest.fixture(scope="module")
def all_recordings() -> list[Recording]:
    return load_recordings(recordings_file())


@pytest.fixture(scope="module")
def data(all_recordings: list[Recording]) -> Split:
    return split(all_recordings)


def as_set(windows: np.ndarray) -> set[bytes]:
    return {window.tobytes() for window in windows}


def test_every_person_has_one_recording_for_each_exercise_and_shoulder(all_recordings: list[Recording]) -> None:
    seen = {(each.person, each.shoulder, each.exercise) for each in all_recordings}
    assert len(all_recordings) == len(seen) == 10 * 2 * 7


def test_eight_people_take_part_and_two_stay_out(data: Split, all_recordings: list[Recording]) -> None:
    assert [person.number for person in data.people] == [1, 2, 3, 4, 5, 6, 7, 8]
    held = set().union(*(as_set(person.train[0]) | as_set(person.test[0]) for person in data.people))
    outside = [each for each in all_recordings if each.person in recordings.UNSEEN_PEOPLE]
    assert len(outside) == 2 * 2 * 7
    for each in outside:
        assert held.isdisjoint(as_set(each.windows()))
    assert len(data.unseen) == 2


def test_half_of_the_devices_hold_a_right_shoulder_and_half_a_left_one(data: Split) -> None:
    assert sorted(person.own_shoulder for person in data.people) == ["left"] * 4 + ["right"] * 4


def test_no_window_of_a_tested_shoulder_is_trained_on_by_anyone(data: Split) -> None:
    trained = as_set(pooled(data.people)[0])
    for person in data.people:
        assert trained.isdisjoint(as_set(person.test[0]))
    for windows, _ in data.unseen:
        assert trained.isdisjoint(as_set(windows))


def test_a_device_holds_only_its_own_persons_recordings_of_one_shoulder(
    data: Split, all_recordings: list[Recording]
) -> None:
    for person in data.people:
        own = [each for each in all_recordings if (each.person, each.shoulder) == (person.number, person.own_shoulder)]
        assert as_set(person.train[0]) == set().union(*(as_set(each.windows()) for each in own))


def test_every_device_and_every_test_has_all_seven_exercises(data: Split) -> None:
    for person in data.people:
        for windows, exercises in (person.train, person.test):
            assert windows.dtype == np.float32
            assert windows.shape == (len(exercises), recordings.WINDOW, recordings.CHANNELS)
            assert set(exercises) == set(range(len(recordings.EXERCISES)))


def test_windows_are_two_seconds_long_and_start_every_second() -> None:
    samples = np.arange(1000 * 6, dtype=np.float64).reshape(1000, 6) / 6000
    windows = Recording(1, "left", 0, samples).windows()
    assert windows.shape == (19, 100, 6)
    scale = smartwatch.GAIN / smartwatch.SENSOR_RANGE
    np.testing.assert_allclose(windows[3], samples[150:250] * scale, rtol=1e-6)


def test_scaling_one_recording_does_not_depend_on_the_others(all_recordings: list[Recording]) -> None:
    first = all_recordings[0]
    alone = split([each for each in all_recordings if each.person in {first.person, 9, 10}])
    together = split(all_recordings)
    mine = next(person for person in together.people if person.number == first.person)
    assert as_set(alone.people[0].train[0]) <= as_set(mine.train[0]) | as_set(mine.test[0])


def test_a_changed_file_is_refused_before_anything_in_it_runs(tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    payload = np.empty((), dtype=object)
    payload[()] = _Touch(witness)
    changed = tmp_path / "watch_dataset.npy"
    np.save(changed, payload, allow_pickle=True)
    with pytest.raises(DataError, match="SHA-256"):
        load_recordings(changed)
    assert not witness.exists()
    np.load(changed, allow_pickle=True)
    assert witness.exists()  # so the check is what kept it from running


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        load_recordings(tmp_path / "nothing.npy")


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install --no-deps seglearn"):
        recordings_file()


class _Touch:
    """Pickled, it makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)
