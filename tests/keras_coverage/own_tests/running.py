"""Runs the cases of Keras's own tests: those that have a gradient and that Keras trains, and with which result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf

import edgefl
import edgefl_converters
from keras_coverage.own_tests.collecting import LayerCase, layer_cases
from keras_coverage.pairwise.record import Record, version_of
from keras_coverage.pairwise.trials import accepted_by_keras, complaints, numbers_for

__all__ = ["OwnTest", "own_tests"]


@dataclass(frozen=True)
class OwnTest:
    """A case that Keras trains.

    Attributes:
        key: as in `LayerCase`.
        complaint: what is wrong with it; empty where it trains as in Keras.
    """

    key: str
    complaint: str

    @property
    def diverges(self) -> bool:
        """Whether Keras's own loss is no number after a few steps, whatever the learning rate."""
        return "diverges in Keras itself" in self.complaint


def own_tests(checkout: Path, record: Path) -> list[OwnTest]:
    """Tries every case with a gradient that Keras itself trains.

    Args:
        checkout: of Keras.
        record: what has been tried before, and where to write it.
    """
    here = Path(__file__).parents[1]
    trains = Record(record, version_of([here]))
    tried = Record(record, version_of([here, *(Path(each.__file__).parent for each in (edgefl, edgefl_converters))]))
    cases = {case.key: case for case in layer_cases(checkout)}
    for key, case in cases.items():
        if trains.get(key) is None:
            trains.put(key, accepted_by_keras(case) and _has_gradient(case))
    wanted = [case for key, case in cases.items() if trains.get(key)]
    for case, complaint in complaints([case for case in wanted if tried.get(f"tried {case.key}") is None]):
        tried.put(f"tried {case.key}", complaint[:600])
    return [OwnTest(case.key, tried.get(f"tried {case.key}")) for case in wanted]


def _has_gradient(case: LayerCase) -> bool:
    """Tells whether anything before the last layer learns: weights of the layer, or what it passes a gradient on to."""
    keras.backend.clear_session()
    part = case.make()
    model = keras.Model(list(part.inputs), list(part.outputs))
    last = model.layers[-1].trainable_variables
    learning = [each for each in model.trainable_variables if not any(each is own for own in last)]
    with tf.GradientTape() as tape:
        outputs = keras.tree.flatten(model([numbers_for(each) for each in part.inputs], training=True))
        value = tf.add_n([tf.reduce_sum(each) for each in outputs])
    return any(each is not None for each in tape.gradient(value, [each.value for each in learning]))
