from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from examples.smartwatch import contenders
from examples.smartwatch.contenders import Judge
from examples.smartwatch.recordings import Person, Split


class FakeModel:
    """Is right about an example when its label is among the weights."""

    weights = np.zeros(1, np.float32)

    def evaluate(self, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
        return {"accuracy": float(np.isin(y, self.weights).mean())}


def examples(*labels: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((len(labels), 1), np.float32), np.array(labels, np.int32)


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Judge:
    monkeypatch.setattr(contenders, "load_model", lambda path: FakeModel())
    first = Person(1, "left", examples(9), examples(1, 1, 1, 2))
    second = Person(2, "right", examples(9), examples(1, 2))
    return Judge(Path("model.tflite"), Split((first, second), (examples(1, 3),)))


def test_one_model_is_tested_on_everyones_other_shoulder(judge: Judge) -> None:
    accuracies = judge.judge(np.array([1.0], np.float32))
    assert accuracies.other_shoulder == (0.75, 0.5)
    assert accuracies.unseen_people == (0.5,)


def test_every_person_counts_the_same_however_many_windows_there_are(judge: Judge) -> None:
    assert judge.judge(np.array([1.0], np.float32)).on_other_shoulder == 0.625


def test_a_device_alone_is_tested_on_its_own_person_and_all_of_them_on_unseen_people(judge: Judge) -> None:
    alone = judge.judge_each([np.array([2.0], np.float32), np.array([1.0], np.float32)])
    assert alone.other_shoulder == (0.25, 0.5)
    assert alone.unseen_people == (0.25,)  # the mean of 0 and 0.5


def test_what_was_trained_is_not_tested_on(judge: Judge) -> None:
    assert judge.judge(np.array([9.0], np.float32)).on_other_shoulder == 0
