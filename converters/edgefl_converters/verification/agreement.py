"""Trains a model file on every installed runtime beside its Keras model, and compares."""

from __future__ import annotations

import functools
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from edgefl.errors import RuntimeFailure, VerificationError
from edgefl.manifest import ModelManifest
from edgefl.model_file import ModelFile
from edgefl_converters.settings.options import options_of
from edgefl_converters.stages import stage
from edgefl_converters.training_step.specification import Specification, specify
from edgefl_converters.verification.experiment import Experiment
from edgefl_converters.verification.judging import Comparison, judge
from edgefl_converters.verification.made_up_batches import NUMBERS, Numbers, draw_batches
from edgefl_converters.verification.measuring import Expectation, Measured, UndefinedLossError, look_closer, measure
from edgefl_converters.verification.probing import Probe
from edgefl_converters.verification.programme import Answers, Programme, State
from edgefl_converters.verification.report import REPORT_IT, RuntimeReport, VerificationReport
from edgefl_converters.verification.runtimes import Runtime, UnusableRuntimeError, runtimes_for

__all__ = ["RefusedDataError", "check_agreement", "compare"]

_STEPS = 10
_OTHER_RATE = 1.25
"""The learning rate of the steps is so many times the compiled one: a file that had it as a constant would not
follow."""
_SEED = 20260101
_PROXIMAL_WEIGHT, _CORRECTION = 0.5, 0.1
"""Large enough to be seen: the part of the way back that a step of SGD goes, and beside a gradient of made-up data."""


class RefusedDataError(VerificationError):
    """Keras itself does not take what was made up to compare with: nothing is known of the file, or of any layer."""


def check_agreement(
    model: keras.Model,
    data: bytes,
    *,
    runtimes: Sequence[Runtime] | None = None,
) -> VerificationReport:
    """Compares a model file with the Keras model that it was made from, taking all else from what the file says.

    Args:
        model: compiled; left as it is.
        data: the model file.
        runtimes: to run on; by default every installed one that the file's target includes.

    Returns:
        Every figure; `VerificationReport.require` raises where they differ.

    Raises:
        UnsupportedModelError: Keras cannot rebuild the model from its configuration.
        VerificationError: a runtime refuses the file, or file and model have different parameters.
    """
    manifest = ModelFile(data).manifest
    specification = specify(model, batch_size=manifest.batch_size, options=options_of(manifest))
    return compare(specification, data, runtimes=runtimes)


def compare(
    specification: Specification, data: bytes, *, runtimes: Sequence[Runtime] | None = None
) -> VerificationReport:
    """Compares a model file with what it was made from; both begin from the file's weights.

    Args:
        specification: of the model and the options, with the batch size to look at of those that the file has.
        data: the model file.
        runtimes: as `check_agreement` takes them.

    Returns:
        Every figure, as `check_agreement` does.

    Raises:
        UnsupportedModelError: Keras cannot rebuild the model from its configuration.
        VerificationError: a runtime refuses the file, or file and model have different parameters.
    """
    file = ModelFile(data)
    manifest = file.manifest.of_batch_size(specification.batch_size)
    generator = np.random.default_rng(_SEED)
    experiment, expectation = _measured_in_keras(specification, file, manifest, generator)
    programme = Programme(
        manifest,
        experiment.batches,
        experiment.probe.rate,
        experiment.rate,
        experiment.rows,
        experiment.row_weights,
        experiment.mu,
        experiment.correction,
        "" if manifest is file.manifest else f"_{manifest.batch_size}",
    )

    @functools.cache
    def closer() -> Expectation:
        return look_closer(specification, manifest, experiment, expectation, np.random.default_rng(_SEED))

    reports = []
    with tempfile.TemporaryDirectory(prefix="edgefl-verify-") as folder:
        path = Path(folder, "model.tflite")
        path.write_bytes(data)
        for runtime in runtimes_for(manifest.target) if runtimes is None else runtimes:
            reports.append(_run(runtime, path, manifest, programme, experiment, expectation, closer))
    return VerificationReport(
        f"Keras {keras.__version__} on TensorFlow {tf.__version__}, {expectation.reference}",
        experiment.rate,
        len(experiment.batches),
        None if manifest.mixes_rows else experiment.rows,
        reports,
        manifest.target,
    )


def _measured_in_keras(
    specification: Specification, file: ModelFile, manifest: ModelManifest, generator: np.random.Generator
) -> tuple[Experiment, Expectation]:
    """Computes in Keras what is expected, on other numbers where it refuses some or its loss is not defined on them."""
    refusal = None
    undefined = None
    for numbers in NUMBERS:
        experiment = _experiment(specification, file, manifest, generator, numbers)
        try:
            return measure(specification, manifest, experiment, generator)
        except tf.errors.InvalidArgumentError as error:
            refusal = refusal or error
        except UndefinedLossError as error:
            undefined = undefined or error
        except tf.errors.OperatorNotAllowedInGraphError as error:
            raise VerificationError(
                "Keras cannot run the model's steps in a graph, as `fit` does: Python code decides by the value of a "
                f"tensor, in {_own_place(error)}.",
                hint="Decide with keras.ops.where or keras.ops.cond there; R2Score of Keras decides so by itself if "
                "it is given num_regressors.",
            ) from error
    if undefined is not None:
        raise undefined
    raise RefusedDataError(
        f"Keras itself refuses the data that was made up to compare with: {_last_line(refusal)}.",
        hint="Convert it without verification (`verify=False`) if it trains on your own data in Keras.",
    ) from refusal


def _last_line(error: Any) -> str:
    """The words of TensorFlow, behind the lines of code that it lists."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in reversed(lines) if not line.startswith("[[")), "nothing more is known").rstrip(".")


def _experiment(
    specification: Specification,
    file: ModelFile,
    manifest: ModelManifest,
    generator: np.random.Generator,
    numbers: Numbers,
) -> Experiment:
    rows, weights = _rows(manifest, generator)
    has_slots = any(each.dtype.startswith("float") for each in manifest.state)
    rate = _OTHER_RATE * specification.learning_rate
    probe = Probe.of(type(specification.optimizer).__name__, rate, has_slots)
    initial = {parameter.name: file.initial_value(parameter) for parameter in manifest.parameters}
    batches = draw_batches(specification, _STEPS, generator, numbers=numbers)
    proximal_weight = _PROXIMAL_WEIGHT if manifest.has_proximal_term else 0.0
    return Experiment(initial, batches, rows, weights, probe, rate, proximal_weight, _correction(manifest, generator))


def _rows(manifest: ModelManifest, generator: np.random.Generator) -> tuple[int, NDArray[np.float32]]:
    """Rows of a batch that is not full, and their weights; where it has to be full, all of them, without weights."""
    if manifest.of_whole_batches:
        return manifest.batch_size, np.ones(manifest.batch_size, np.float32)
    rows = min(3, max(1, manifest.batch_size - 1))
    return rows, generator.uniform(0.5, 2.0, rows).astype(np.float32)


def _correction(manifest: ModelManifest, generator: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    if not manifest.has_correction:
        return {}
    return {
        spec.name: generator.uniform(-_CORRECTION, _CORRECTION, spec.shape).astype(np.float32)
        for spec in manifest.signatures["set_correction"].inputs
    }


def _run(
    runtime: Runtime,
    path: Path,
    manifest: ModelManifest,
    programme: Programme,
    experiment: Experiment,
    expectation: Expectation,
    closer: Callable[[], Expectation],
) -> RuntimeReport:
    try:
        with stage(runtime.name):
            answers = programme.read(runtime.run(path, programme.calls))
    except UnusableRuntimeError as error:
        return RuntimeReport(runtime.name, runtime.version, False, error.message, (), ())
    except RuntimeFailure as error:
        raise VerificationError(error.message, hint=REPORT_IT) from error
    measured = _measured(manifest, experiment, answers)
    comparisons = judge(manifest, experiment, expectation, measured)
    if _may_be_kinks(comparisons):
        comparisons = judge(manifest, experiment, closer(), measured)
    laws = [law for law, (left, right) in answers.identities.items() if not _same_bits(left, right)]
    if not _same_arrays(answers.initial, experiment.initial):
        laws.append("get_weights returns the initial weights")
    if answers.evaluation["rows"] != experiment.rows:
        laws.append("evaluate counts the rows with a weight")
    return RuntimeReport(runtime.name, runtime.version, True, "", comparisons, laws)


def _may_be_kinks(comparisons: Sequence[Comparison]) -> bool:
    """Tells whether only later steps differ while the gradient and all else agree: no wrong formula does it."""
    failed = {each.kind for each in comparisons if not each.passed}
    return bool(failed) and failed <= {"training", "loss", "pulled training"}


def _measured(manifest: ModelManifest, experiment: Experiment, answers: Answers) -> Measured:
    statistics = frozenset(each.name for each in manifest.parameters if each.role == "statistic")
    counters = [each.name for each in manifest.state if not each.dtype.startswith("float")]

    def moved(state: State) -> dict[str, Any]:
        return {name: value.astype(np.float64) - experiment.initial[name] for name, value in state.variables.items()}

    def shown(state: State) -> dict[str, Any]:
        slots = {name: value for name, value in state.slots.items() if name not in counters}
        return experiment.probe.reveal(moved(state), slots, statistics)

    return Measured(
        outputs={name: value.astype(np.float64) for name, value in answers.outputs.items()},
        evaluation={name: np.asarray(value, np.float64) for name, value in answers.evaluation.items()},
        probe=shown(answers.probe),
        partial=None if answers.partial is None else shown(answers.partial),
        logs={
            f"{step} {name}": np.asarray(value, np.float64)
            for step, log in (*enumerate(answers.logs), ("partial", answers.partial_log))
            for name, value in log.items()
        },
        moved=moved(answers.trained),
        counters={name: answers.trained.slots[name] for name in counters},
        federated={} if answers.federated is None else moved(answers.federated),
        gradients=answers.gradients,
    )


def _same_bits(left: State, right: State) -> bool:
    return _same_arrays(left.variables, right.variables) and _same_arrays(left.slots, right.slots)


def _same_arrays(left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    return left.keys() == right.keys() and all(left[name].tobytes() == right[name].tobytes() for name in left)


def _own_place(error: BaseException) -> str:
    """The innermost function that an error went through outside of TensorFlow, in words."""
    frames = [each for each in traceback.extract_tb(error.__traceback__) if "tensorflow" not in each.filename]
    return f"{frames[-1].name} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"
