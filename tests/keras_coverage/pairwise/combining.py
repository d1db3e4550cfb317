"""Runs subjects: which settings cover all pairs of values, and what is wrong with each of them."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import edgefl
import edgefl_converters
from keras_coverage.pairwise import compiled, core_layers, image_layers, sequence_layers
from keras_coverage.pairwise.arrays import covering
from keras_coverage.pairwise.record import Record, version_of
from keras_coverage.pairwise.subjects import SUBJECTS, Settings, Subject
from keras_coverage.pairwise.trials import Trial, accepted_by_keras, complaints

__all__ = ["Combined", "combine", "combine_all", "found_before"]

_FAMILIES = (compiled, core_layers, image_layers, sequence_layers)
_PROCESSES = 2
_SUBJECTS_OF_A_PROCESS = 10
"""TensorFlow keeps the graphs of a process."""


@dataclass(frozen=True)
class Combined:
    """What became of a subject.

    Attributes:
        name: of the subject.
        complaints: what was wrong with each case, by its key; empty where nothing was.
    """

    name: str
    complaints: dict[str, str]

    @property
    def converted(self) -> int:
        """How many cases train as in Keras."""
        return sum(not complaint for complaint in self.complaints.values())


def combine_all(names: Sequence[str], path: Path) -> Iterator[Combined]:
    """Runs subjects side by side; yields each as it is done.

    Args:
        names: of the subjects.
        path: of the record.
    """
    shares = [names[start : start + _SUBJECTS_OF_A_PROCESS] for start in range(0, len(names), _SUBJECTS_OF_A_PROCESS)]
    with concurrent.futures.ThreadPoolExecutor(_PROCESSES) as pool:
        for share in concurrent.futures.as_completed([pool.submit(_in_a_process, share, path) for share in shares]):
            yield from share.result()


def _in_a_process(names: Sequence[str], path: Path) -> list[Combined]:
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return list(process.map(combine, names, [path] * len(names)))


def combine(name: str, path: Path) -> Combined:
    """Runs a subject, as far as the record does not say what comes of it.

    Args:
        name: of the subject.
        path: of the record.
    """
    subject, (arrays, tried) = SUBJECTS[name], _records(path)
    if arrays.get(name) is None:
        arrays.put(name, _covering(subject))
    trials = _trials(subject, arrays.get(name))
    for trial, complaint in complaints([each for each in trials if tried.get(each.key) is None]):
        tried.put(trial.key, complaint[:600])
    return Combined(name, {each.key: tried.get(each.key) for each in trials})


def found_before(path: Path) -> Iterator[Combined]:
    """The subjects of which the record knows all."""
    arrays, tried = _records(path)
    for name, subject in SUBJECTS.items():
        if arrays.get(name) is not None:
            found = {each.key: tried.get(each.key) for each in _trials(subject, arrays.get(name))}
            if None not in found.values():
                yield Combined(name, found)


def _records(path: Path) -> tuple[Record, Record]:
    here = Path(__file__).parent
    converter = [Path(package.__file__).parent for package in (edgefl, edgefl_converters)]
    return Record(path, version_of([here])), Record(path, version_of([here, *converter]))


def _covering(subject: Subject) -> dict[str, Any]:
    """The cases as places of values, which JSON can hold whatever the values are, and what is tried once."""
    array = covering(subject.values, lambda settings: accepted_by_keras(Trial(subject, settings)))
    once = [name for name in subject.once if accepted_by_keras(Trial(subject, _with(subject, name)))]
    places = [{name: _place(subject.values[name], value) for name, value in each.items()} for each in array.cases]
    return {"places": places, "once": once}


def _with(subject: Subject, name: str) -> Settings:
    return {**subject.usual, name: subject.once[name]}


def _place(values: Sequence[Any], value: Any) -> int:
    return next(place for place, each in enumerate(values) if each is value)


def _trials(subject: Subject, found: dict[str, Any]) -> list[Trial]:
    chosen = [{name: subject.values[name][place] for name, place in each.items()} for each in found["places"]]
    return [Trial(subject, each) for each in (*chosen, *(_with(subject, name) for name in found["once"]))]
