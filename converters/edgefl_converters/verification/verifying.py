"""Trains a model file on every installed runtime beside its Keras model, and compares."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from edgefl.errors import MissingDependencyError, RuntimeFailure, VerificationError
from edgefl.manifest import ModelManifest
from edgefl.model_file import ModelFile
from edgefl.parts import install_line
from edgefl_converters.specification import Specification, specify
from edgefl_converters.verification.batches import draw_batches
from edgefl_converters.verification.judging import Comparison, judge
from edgefl_converters.verification.measuring import Expectation, Experiment, Measured, measure
from edgefl_converters.verification.probing import Probe
from edgefl_converters.verification.programme import Answers, Programme, State
from edgefl_converters.verification.runtimes import Runtime, UnusableRuntimeError, installed_runtimes

__all__ = ["RuntimeReport", "VerificationReport", "check_agreement"]

_STEPS = 10
_SEED = 20260101
_LOOK = "Please report the model; until then, replace the layer that is named or the one after it."


@dataclass(frozen=True)
class RuntimeReport:
    """What one runtime did.

    Attributes:
        name: of the runtime's distribution.
        version: of it.
        ran: False when it is installed but cannot run here.
        reason: why it did not run; empty if it did.
        comparisons: every figure beside Keras's.
        broken_laws: laws that must hold to the last bit and did not.
    """

    name: str
    version: str
    ran: bool
    reason: str
    comparisons: Sequence[Comparison]
    broken_laws: Sequence[str]

    @property
    def passed(self) -> bool:
        """True when nothing differs."""
        return self.ran and not self.broken_laws and all(each.passed for each in self.comparisons)


@dataclass(frozen=True)
class VerificationReport:
    """The whole verification of a file.

    Attributes:
        reference: what the exact results were computed in.
        learning_rate: of the training steps.
        steps: how many were taken.
        partial_rows: real rows of the padded batch; None where the model mixes rows, so that rows cannot be padded.
        runtimes: one report for each installed runtime.
    """

    reference: str
    learning_rate: float
    steps: int
    partial_rows: int | None
    runtimes: Sequence[RuntimeReport]

    @property
    def passed(self) -> bool:
        """True when at least one runtime ran and nothing differs on any."""
        ran = [report for report in self.runtimes if report.ran]
        return bool(ran) and all(report.passed for report in ran)

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "passed": self.passed,
            "reference": f"Keras {keras.__version__} on TensorFlow {tf.__version__}, {self.reference}",
            "learning_rate": self.learning_rate,
            "steps": self.steps,
            "partial_rows": self.partial_rows,
            "runtimes": [
                {
                    "name": report.name,
                    "version": report.version,
                    "ran": report.ran,
                    "reason": report.reason,
                    "passed": report.passed,
                    "worst": _worst(report.comparisons),
                    "broken_laws": list(report.broken_laws),
                    "comparisons": [{**asdict(each), "passed": each.passed} for each in report.comparisons],
                }
                for report in self.runtimes
            ],
        }

    def require(self) -> None:
        """Raises if anything differs.

        Raises:
            VerificationError: names the worst difference of the first runtime that differs.
            MissingDependencyError: no runtime is installed.
        """
        for report in self.runtimes:
            if report.ran and not report.passed:
                raise VerificationError(
                    f"On {report.name} {report.version} the model does not train as in Keras: {_complaint(report)}.",
                    hint=_LOOK,
                )
        if not any(report.ran for report in self.runtimes):
            reasons = " ".join(report.reason for report in self.runtimes) or "None is installed."
            raise MissingDependencyError(
                f"No TFLite runtime is here to verify the model on. {reasons}",
                hint=f"Install one with: {install_line('convert')}",
            )


def check_agreement(
    model: keras.Model,
    data: bytes,
    *,
    runtimes: Sequence[Runtime] | None = None,
) -> VerificationReport:
    """Compares a model file with the compiled Keras model that it was made from; both begin from the file's weights.

    Args:
        model: compiled; left as it is.
        data: the model file.
        runtimes: to run on; by default every installed one.

    Returns:
        Every figure; `VerificationReport.require` raises where they differ.

    Raises:
        UnsupportedModelError: Keras cannot rebuild the model from its configuration.
        VerificationError: a runtime refuses the file, or file and model have different parameters.
    """
    file = ModelFile(data)
    manifest = file.manifest
    specification = specify(model, batch_size=manifest.batch_size)
    generator = np.random.default_rng(_SEED)
    experiment = _experiment(specification, file, generator)
    experiment, expectation = measure(specification, manifest, experiment, generator)
    programme = Programme(
        manifest, experiment.batches, experiment.probe.rate, experiment.rate, experiment.rows, experiment.row_weights
    )
    reports = []
    with tempfile.TemporaryDirectory(prefix="edgefl-verify-") as folder:
        path = Path(folder, "model.tflite")
        path.write_bytes(data)
        for runtime in installed_runtimes() if runtimes is None else runtimes:
            reports.append(_run(runtime, path, manifest, programme, experiment, expectation))
    return VerificationReport(
        expectation.reference,
        experiment.rate,
        len(experiment.batches),
        None if manifest.mixes_rows else experiment.rows,
        reports,
    )


def _experiment(specification: Specification, file: ModelFile, generator: np.random.Generator) -> Experiment:
    manifest = file.manifest
    rows = min(3, max(1, manifest.batch_size - 1))
    weights = generator.uniform(0.5, 2.0, rows).astype(np.float32)
    has_slots = any(each.dtype.startswith("float") for each in manifest.state)
    rate = specification.learning_rate
    probe = Probe.of(type(specification.optimizer).__name__, rate, has_slots)
    initial = {parameter.name: file.initial_value(parameter) for parameter in manifest.parameters}
    return Experiment(initial, draw_batches(specification, _STEPS, generator), rows, weights, probe, rate)


def _run(
    runtime: Runtime,
    path: Path,
    manifest: ModelManifest,
    programme: Programme,
    experiment: Experiment,
    expectation: Expectation,
) -> RuntimeReport:
    try:
        answers = programme.read(runtime.run(path, programme.calls))
    except UnusableRuntimeError as error:
        return RuntimeReport(runtime.name, runtime.version, False, error.message, (), ())
    except RuntimeFailure as error:
        raise VerificationError(error.message, hint=_LOOK) from error
    comparisons = judge(manifest, experiment, expectation, _measured(manifest, experiment, answers))
    laws = [law for law, (left, right) in answers.identities.items() if not _same_bits(left, right)]
    if not _same_arrays(answers.initial, experiment.initial):
        laws.append("get_weights returns the initial weights")
    return RuntimeReport(runtime.name, runtime.version, True, "", comparisons, laws)


def _measured(manifest: ModelManifest, experiment: Experiment, answers: Answers) -> Measured:
    statistics = frozenset(each.name for each in manifest.parameters if each.role == "statistic")
    counters = [each.name for each in manifest.state if not each.dtype.startswith("float")]

    def moved(state: State) -> dict[str, Any]:
        return {name: value.astype(np.float64) - experiment.initial[name] for name, value in state.variables.items()}

    def shown(state: State) -> dict[str, Any]:
        slots = {name: value for name, value in state.slots.items() if name not in counters}
        return experiment.probe.reveal(moved(state), slots, statistics)

    return Measured(
        outputs={str(index): each.astype(np.float64) for index, each in enumerate(answers.outputs)},
        evaluation={name: np.asarray(value, np.float64) for name, value in answers.evaluation.items()},
        probe=shown(answers.probe),
        partial=None if answers.partial is None else shown(answers.partial),
        logs={
            f"{step} {name}": np.asarray(value, np.float64)
            for step, log in enumerate(answers.logs)
            for name, value in log.items()
        },
        moved=moved(answers.trained),
        counters={name: answers.trained.slots[name] for name in counters},
    )


def _same_bits(left: State, right: State) -> bool:
    return _same_arrays(left.variables, right.variables) and _same_arrays(left.slots, right.slots)


def _same_arrays(left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    return left.keys() == right.keys() and all(left[name].tobytes() == right[name].tobytes() for name in left)


def _complaint(report: RuntimeReport) -> str:
    failed = [each for each in report.comparisons if not each.passed]
    if not failed:
        return f"it breaks the law that {'; '.join(report.broken_laws)}"
    # Errors of the gradient spread from the output to the input: the last parameter that differs is the closest to
    # where it goes wrong.
    order = {kind: index for index, kind in enumerate(("infer", "gradient", "partial batch"))}
    first = min(reversed(failed), key=lambda each: order.get(each.kind, len(order)))
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    return f"{first}{more}"


def _worst(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """For each kind, the figure that comes closest to its limit."""
    worst: dict[str, Comparison] = {}
    for each in comparisons:
        if each.kind not in worst or not each.error / (each.limit or 1) <= worst[each.kind].error / (
            worst[each.kind].limit or 1
        ):
            worst[each.kind] = each
    return {kind: {"name": each.name, "error": each.error, "limit": each.limit} for kind, each in worst.items()}
