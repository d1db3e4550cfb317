"""Converts the models of a row and trains them on both runtimes beside Keras."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import keras

from edgefl.errors import EdgeflError
from edgefl_converters.building.building import BuiltModel, build
from edgefl_converters.lint import require_clean
from edgefl_converters.verification.agreement import check_agreement
from edgefl_converters.verification.judging import Comparison
from edgefl_converters.verification.report import RuntimeReport
from keras_coverage.architectures import Architecture
from keras_coverage.rows import Row
from processor_time import used

__all__ = ["ArchitectureOutcome", "Outcome", "measure", "measure_architecture"]


@dataclass(frozen=True)
class Outcome:
    """What became of a row.

    Attributes:
        errors: name of each runtime to its error: for a metric, of its value in an evaluation; else the norm of what
            the whole first gradient misses of the float64 one, relative to that. The largest of all variants.
        seconds: of processors that each variant took, converted and trained on all runtimes, or refused.
    """

    errors: Mapping[str, float]
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ArchitectureOutcome:
    """What became of a network.

    Attributes:
        parameters: how many numbers it has.
        size: of the file, in bytes.
        seconds: of processors that all of it took.
        errors: as in `Outcome`.
        keras_error: how far Keras's own float32 gradient misses the float64 one, also with other last bits.
    """

    parameters: int
    size: int
    seconds: float
    errors: Mapping[str, float]
    keras_error: float


def measure(row: Row, section: str) -> Outcome:
    """Runs a row of a section.

    Raises:
        AssertionError: the row says something else than what happens.
    """
    errors: dict[str, float] = {}
    seconds: dict[str, float] = {}
    for variant, make in row.models.items():
        start = used()
        keras.backend.clear_session()
        keras.utils.set_random_seed(1)
        where = f"{row.api.__name__} ({variant})"
        if row.answer == "no":
            _require_refusal(row, make, where)
            seconds[variant] = used() - start
            continue
        model = make()
        built = build(model, batch_size=row.batch_size)
        for name, error in _errors(model, built, where, _ERRORS.get(section, _gradient_error)):
            errors[name] = max(errors.get(name, 0.0), error)
        seconds[variant] = used() - start
    return Outcome(errors, seconds)


def measure_architecture(architecture: Architecture) -> ArchitectureOutcome:
    """Converts a network and trains it beside Keras.

    Raises:
        AssertionError: it does not train as in Keras.
    """
    keras.backend.clear_session()
    keras.utils.set_random_seed(1)
    model = architecture.build()
    start = used()
    built = build(model, batch_size=architecture.batch_size)
    reports = list(_reports(model, built, architecture.name))
    errors = {report.name: _gradient_error(report) for report in reports}
    own = max(map(_keras_error, reports))
    return ArchitectureOutcome(int(model.count_params()), len(built.data), used() - start, errors, own)


def _errors(
    model: keras.Model, built: BuiltModel, where: str, error: Callable[[RuntimeReport], float]
) -> Iterator[tuple[str, float]]:
    return ((report.name, error(report)) for report in _reports(model, built, where))


def _reports(model: keras.Model, built: BuiltModel, where: str) -> Iterator[RuntimeReport]:
    require_clean(built.data, built.manifest)
    report = check_agreement(model, built.data)
    for runtime in report.runtimes:
        assert runtime.ran, f"{where} did not run on {runtime.name}: {runtime.reason}"
        failed = [*map(str, runtime.failures), *runtime.broken_laws]
        assert not failed, f"{where} on {runtime.name}: {failed[:4]}"
        yield runtime


def _gradient_error(report: RuntimeReport) -> float:
    gradients = _gradients(report)
    return math.hypot(*(each.error * each.scale for each in gradients)) / _size(gradients)


def _keras_error(report: RuntimeReport) -> float:
    gradients = _gradients(report)
    return math.hypot(*(each.keras_error * each.scale for each in gradients)) / _size(gradients)


def _gradients(report: RuntimeReport) -> list[Comparison]:
    kinds = ("gradient", "training")  # an optimizer that accumulates gradients shows none in its first step
    found = ([each for each in report.comparisons if each.kind == kind and each.scale > 0] for kind in kinds)
    return next(filter(None, found))


def _size(gradients: Sequence[Comparison]) -> float:
    return math.hypot(*(each.scale for each in gradients))


def _metrics_error(report: RuntimeReport) -> float:
    return max(each.error for each in report.comparisons if each.kind == "evaluate" and each.name != "loss")


_ERRORS = {"metrics": _metrics_error}


def _require_refusal(row: Row, make: object, where: str) -> None:
    assert callable(make)
    try:
        built = build(make(), batch_size=row.batch_size)
        require_clean(built.data, built.manifest)
    except EdgeflError:
        return
    raise AssertionError(f"{where} is said to be refused, but it converts.")
