"""What the federated model is compared with: each device alone, and all data in one place.

All of them train the same model file from the same initial weights with the trainer of `edgefl device run`, for the
same number of passes over their data.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from examples.loading import load_model
from examples.smartwatch.recordings import Examples, Split, pooled

__all__ = ["Accuracies", "Contenders", "Judge"]

Vector = NDArray[np.float32]

_ORDERS = 3
"""Centralised training is done with so many orders of the examples, and the mean is shown: a single one ends up to five
points higher or lower, depending on how a processor rounds."""


@dataclass(frozen=True)
class Accuracies:
    """How well some weights do; every person counts the same.

    Attributes:
        other_shoulder: of each person who takes part, on the shoulder that nobody trained on for that person.
        unseen_people: of each person who does not, both shoulders.
    """

    other_shoulder: tuple[float, ...]
    unseen_people: tuple[float, ...]

    @property
    def on_other_shoulder(self) -> float:
        """The mean over the people who take part."""
        return fmean(self.other_shoulder)

    @property
    def on_unseen_people(self) -> float:
        """The mean over the people who do not."""
        return fmean(self.unseen_people)


class Judge:
    """Measures weights on the examples that no device holds.

    Args:
        model: the model file.
        data: who has which examples.
    """

    def __init__(self, model: Path, data: Split) -> None:
        self._model = load_model(model)
        self._data = data

    def initial(self) -> Accuracies:
        """Of the model as it was converted, before any training."""
        return self.judge(self._model.weights)

    def judge(self, weights: Vector) -> Accuracies:
        """Of the same weights for everyone."""
        self._model.weights = weights
        return Accuracies(
            tuple(self._accuracy(person.test) for person in self._data.people),
            tuple(self._accuracy(examples) for examples in self._data.unseen),
        )

    def judge_all(self, weights: Sequence[Vector]) -> Accuracies:
        """Of several models, each used for everyone: the mean of all, for each person."""
        judged = [self.judge(vector) for vector in weights]
        return Accuracies(
            tuple(map(fmean, zip(*(each.other_shoulder for each in judged), strict=True))),
            tuple(map(fmean, zip(*(each.unseen_people for each in judged), strict=True))),
        )

    def judge_each(self, weights: Sequence[Vector]) -> Accuracies:
        """Of one model per person: each on its own person's other shoulder; on unseen people the mean of all."""
        own, unseen = [], []
        for index, vector in enumerate(weights):
            accuracies = self.judge(vector)
            own.append(accuracies.other_shoulder[index])
            unseen.append(accuracies.unseen_people)
        return Accuracies(tuple(own), tuple(fmean(column) for column in zip(*unseen, strict=True)))

    def _accuracy(self, examples: Examples) -> float:
        return self._model.evaluate(*examples)["accuracy"]


class Contenders:
    """Trains everything that the federated model is compared with, in as many processes as there are cores.

    Args:
        model: the model file.
        data: who has which examples.
        epochs: passes over the data for each.
        seed: of the order of the examples.
    """

    def __init__(self, model: Path, data: Split, epochs: int, seed: int) -> None:
        self._model, self._data, self._epochs, self._seed = model, data, epochs, seed

    def train(self, on_progress: Callable[[str], None]) -> tuple[list[Vector], list[Vector]]:
        """Trains them.

        Returns:
            The weights of each device alone, in the order of the people, and those of centralised training, once for
            each order of the examples that was tried.
        """
        # The pooled data are the longest tasks by far: first in, so that the others fill the other cores meanwhile.
        everything = pooled(self._data.people)
        tasks = [*[everything] * _ORDERS, *(person.train for person in self._data.people)]
        names = [
            *(f"all data in one place ({order} of {_ORDERS})" for order in range(1, _ORDERS + 1)),
            *(f"person {person.number} alone" for person in self._data.people),
        ]
        with _pool() as pool:
            futures = [
                pool.submit(_train, self._model, examples, self._epochs, self._seed + index)
                for index, examples in enumerate(tasks)
            ]
            for name, future in zip(names, futures, strict=True):
                future.add_done_callback(_announce(name, on_progress))
            try:
                trained = [future.result() for future in futures]
            except BaseException:
                # Leaving the block would wait for all that is still to be trained.
                for process in multiprocessing.active_children():
                    process.terminate()
                raise
        return trained[_ORDERS:], trained[:_ORDERS]


def _train(model: Path, examples: Examples, epochs: int, seed: int) -> Vector:
    trainable = load_model(model)
    trainable.fit(*examples, epochs=epochs, seed=seed)
    return trainable.weights


def _announce(name: str, on_progress: Callable[[str], None]) -> Callable[[Future[Any]], None]:
    def announce(future: Future[Any]) -> None:
        if not future.cancelled() and future.exception() is None:
            on_progress(f"  trained: {name}")

    return announce


def _pool() -> ProcessPoolExecutor:
    # Fresh interpreters: a TFLite interpreter and its threads do not survive a fork.
    return ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn"))
