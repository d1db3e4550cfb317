"""Runs the cases of Keras's own tests: those that have a gradient and that Keras trains, and with which result."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

import edgefl
import edgefl_converters
from keras_coverage.own_tests.collecting import layer_cases
from keras_coverage.pairwise.record import Record, version_of
from keras_coverage.pairwise.trials import accepted_by_keras, complaint_about
from keras_coverage.watched_process import NoAnswerError, WatchedProcess
from processor_time import used

__all__ = ["OwnTest", "own_tests"]

_SECONDS = 300.0
"""Of a clock, for one model; the slowest ones need a tenth of it where nothing else runs."""
_TOGETHER = 8
"""Cases in one model: what a conversion costs whatever is in it is paid once."""
_TRAINS, _CONVERTS = "trains", "converts"
_Question = tuple[str, Sequence[str]]


@dataclass(frozen=True)
class OwnTest:
    """A case that Keras trains.

    Attributes:
        key: as in `LayerCase`.
        complaint: what is wrong with it; empty where it trains as in Keras.
        seconds: of processors that it took to convert it and to train it beside Keras; of several in one model, its
            share.
    """

    key: str
    complaint: str
    seconds: float

    @property
    def diverges(self) -> bool:
        """Whether Keras's own loss is no number after a few steps, whatever the learning rate."""
        return "diverges in Keras itself" in self.complaint


def own_tests(checkout: Path, record: Path) -> Iterator[OwnTest]:
    """Tries every case with a gradient that Keras itself trains, in a process of its own and with a time limit.

    Args:
        checkout: of Keras.
        record: what has been tried before, and where to write it.
    """
    own, pairwise = Path(__file__).parent, Path(__file__).parents[1] / "pairwise"
    tests = [own / "collecting.py", own / "running.py", pairwise / "places.py", pairwise / "trials.py"]
    packages = [Path(each.__file__).parent for each in (edgefl, edgefl_converters)]
    trains, tried = Record(record, version_of(tests)), Record(record, version_of([*tests, *packages]))
    keys = [case.key for case in layer_cases(checkout)]
    with WatchedProcess(_answers, (checkout,), _SECONDS) as process:
        wanted = (key for key in keys if _trains(process, key, trains))
        while together := list(itertools.islice(wanted, _TOGETHER)):
            for key, found in _tried(process, [key for key in together if tried.get(f"tried {key}") is None]):
                tried.put(f"tried {key}", found)
            yield from (OwnTest(key, **tried.get(f"tried {key}")) for key in together)


def _trains(process: WatchedProcess, key: str, record: Record) -> bool:
    if record.get(key) is None:
        try:
            record.put(key, process.ask((_TRAINS, [key])))
        except NoAnswerError:  # of Keras
            record.put(key, False)
    return bool(record.get(key))


def _tried(process: WatchedProcess, keys: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Tries cases as one model, and one by one if anything is wrong with it."""
    if not keys:
        return
    try:
        complaint, seconds = process.ask((_CONVERTS, keys))
    except NoAnswerError as error:
        complaint, seconds = f"NoAnswerError: {error}", _SECONDS
    if complaint and len(keys) > 1:
        for key in keys:
            yield from _tried(process, [key])
        return
    yield from ((key, {"complaint": complaint[:600], "seconds": round(seconds / len(keys), 1)}) for key in keys)


def _answers(checkout: Path) -> Callable[[_Question], Any]:
    """What a process of its own does; it reads the cases once."""
    cases = {case.key: case for case in layer_cases(checkout)}

    def answer(question: _Question) -> Any:
        what, keys = question
        if what == _TRAINS:
            return all(accepted_by_keras(cases[key], _learns_before_the_end) for key in keys)
        start = used()
        return complaint_about([cases[key] for key in keys]), used() - start

    return answer


def _learns_before_the_end(model: keras.Model, gradients: Sequence[Any]) -> bool:
    """Tells whether anything before the last layer learns: weights of the layer, or what it passes a gradient on to."""
    last = model.layers[-1].trainable_variables
    learning = zip(model.trainable_variables, gradients, strict=True)
    return any(gradient is not None and not any(each is own for own in last) for each, gradient in learning)
