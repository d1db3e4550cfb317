"""Finds what Keras computes, and how sure one can be of it: in float64, in float32, and in float32 with rounding.

How much rounding can change a result is measured, not guessed: Keras itself runs in float32 from weights and inputs
disturbed in their last bits. Networks with kinks (ReLU) amplify that by orders of magnitude, smooth ones do not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from edgefl.errors import ModelError, UnsupportedModelError, first_line
from edgefl.manifest import ModelManifest
from edgefl_converters.memory import give_back
from edgefl_converters.stages import stage
from edgefl_converters.training_step.specification import Specification
from edgefl_converters.verification.experiment import Experiment, disturb
from edgefl_converters.verification.made_up_batches import Batch, federated_batches
from edgefl_converters.verification.reference import Reference, Snapshot

__all__ = ["Expectation", "Measured", "UndefinedLossError", "look_closer", "measure"]

Arrays = Mapping[str, NDArray[Any]]

_DISTURBED_RUNS = 3
_CLOSER_RUNS = 6
_ROUNDING_OF_A_STEP = 2.0**-19
"""Relative size of what a runtime's own order of summation does to the gradient of a convolution."""
_SLOWER, _FASTER = (0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-6), (10.0, 100.0)
"""Factors on the compiled learning rate, tried until training is stable and every weight moves far enough."""
_ENOUGH_MOVED = 1e-4
"""The least movement, as a share of the largest weight: a thousand times its rounding error."""


class UndefinedLossError(ModelError):
    """A model has no loss on the data that was made up for it."""


@dataclass(frozen=True)
class Measured:
    """One side's results; every array is float64.

    Attributes:
        outputs: of the first batch, by name.
        evaluation: loss and metrics of the first rows of the first batch, with the user's weights, not training.
        probe: what one step on the first batch shows.
        partial: what one step on its first rows alone shows, with the user's weights; None where it was not asked.
        logs: loss and metrics of each training step, by ``<step> <name>``; of the partial batch, ``partial <name>``.
        moved: how far each parameter moved in all training steps.
        counters: integer state after all training steps.
        federated: how far each parameter moved in steps with a proximal term and a correction; empty without.
        gradients: what the signature ``gradient`` returns for the first batch; empty without.
    """

    outputs: Arrays
    evaluation: Arrays
    probe: Arrays
    partial: Arrays | None
    logs: Arrays
    moved: Arrays
    counters: Arrays
    federated: Arrays = field(default_factory=dict)
    gradients: Arrays = field(default_factory=dict)


@dataclass(frozen=True)
class Expectation:
    """Holds what Keras computes.

    Attributes:
        reference: what ``exact`` was computed in, ``float64``, or ``float32`` and the reason why.
        exact: the most precise result.
        plain: in float32.
        disturbed: in float32, from weights and inputs with other last bits.
    """

    reference: str
    exact: Measured
    plain: Measured
    disturbed: Sequence[Measured]

    def spread(self, kind: str, name: str, norm: Callable[[NDArray[np.float64]], float]) -> float:
        """Returns how far Keras's own float32 results of a kind lie from the exact one at most."""
        exact = getattr(self.exact, kind)[name]
        return max(norm(getattr(run, kind)[name] - exact) for run in (self.plain, *self.disturbed))


def measure(
    specification: Specification,
    manifest: ModelManifest,
    experiment: Experiment,
    generator: np.random.Generator,
) -> tuple[Experiment, Expectation]:
    """Computes in Keras what a model file is to compute.

    Args:
        specification: of the Keras model.
        manifest: of the file; says which parameters and state there are.
        experiment: with the compiled learning rate.
        generator: for the disturbances.

    Returns:
        The experiment with the learning rate that was used, and what Keras computes in it.

    Raises:
        UnsupportedModelError: Keras cannot rebuild the model from its configuration.
        UndefinedLossError: its loss is no number on the made-up data, before anything is trained.
        ModelError: it diverges in Keras itself.
    """
    experiment, plain, disturbed = _in_float32(specification, manifest, experiment, generator)
    give_back()
    exact, reference = _exactly(specification, manifest, experiment, plain)
    give_back()
    return experiment, Expectation(reference, exact, plain, disturbed)


def _in_float32(
    specification: Specification, manifest: ModelManifest, experiment: Experiment, generator: np.random.Generator
) -> tuple[Experiment, Measured, list[Measured]]:
    """Computes as Keras does, at a rate that fits; and the same with other last bits."""
    with _side(specification, manifest, "float32") as side:
        side.require_defined_on(experiment)
        experiment = _with_fitting_rate(side, experiment)
        plain = side.compute(experiment)
        return experiment, plain, [side.compute(disturb(experiment, generator)) for _ in range(_DISTURBED_RUNS)]


def _exactly(
    specification: Specification, manifest: ModelManifest, experiment: Experiment, plain: Measured
) -> tuple[Measured, str]:
    """Computes in float64, in Keras's own copy of the model or else what Keras computes in float32, op by op."""

    def computed(dtype: str, *, widened: bool = False) -> Measured:
        with _side(specification, manifest, dtype, widened=widened) as side:
            return side.compute(experiment)

    try:
        return computed("float64"), "float64"
    except Exception as error:  # any failure of a layer that insists on float32
        reason = first_line(error)
    give_back()
    try:
        return computed("float32", widened=True), f"float64, operation by operation of Keras's float32: {reason}"
    except Exception as error:  # an op that insists on float32 may say anything: the report tells it
        return plain, f"float32, because the model does not run in float64: {reason} {first_line(error)}"


def look_closer(
    specification: Specification,
    manifest: ModelManifest,
    experiment: Experiment,
    expectation: Expectation,
    generator: np.random.Generator,
) -> Expectation:
    """Finds out whether Keras itself, disturbed like a runtime, ends its training steps elsewhere.

    Whether rounding pushes some activation across a kink (ReLU, the maximum of a pool) is chance: the few disturbed
    runs of `measure` may all miss what a runtime meets, and one crossing changes the rest of the training.

    Args:
        specification: of the Keras model.
        manifest: of the file.
        experiment: as `measure` returned it.
        expectation: the same.
        generator: for the disturbances.

    Returns:
        The expectation with further disturbed runs that differ in the training steps alone.
    """
    runs = []
    with _side(specification, manifest, "float32") as side:
        for _ in range(_CLOSER_RUNS):
            disturbed = disturb(experiment, generator, _ROUNDING_OF_A_STEP)
            logs, after = side.train(disturbed)
            logs = {**expectation.plain.logs, **logs}
            runs.append(replace(expectation.plain, logs=logs, moved=side.moved(disturbed, after)))
    return replace(expectation, disturbed=(*expectation.disturbed, *runs))


@contextlib.contextmanager
def _side(
    specification: Specification, manifest: ModelManifest, dtype: str, *, widened: bool = False
) -> Iterator[_Side]:
    with stage(f"Keras in {'float64' if widened else dtype}"):
        reference = Reference(specification, dtype, weighted=not manifest.of_whole_batches, widened=widened)
        try:
            yield _Side(reference, manifest, logs_may_lack=specification.own_step is not None)
        finally:
            reference.close()


class _Side:
    """Runs experiments in one Keras copy of the model."""

    def __init__(self, reference: Reference, manifest: ModelManifest, *, logs_may_lack: bool) -> None:
        self._reference, self._logs_may_lack = reference, logs_may_lack
        self._outputs = manifest.outputs
        # Keras also logs a loss for each output, which a file does not return.
        self._logs = ("loss", *(metric.name for metric in manifest.metrics))
        self._parameters = [parameter.name for parameter in manifest.parameters]
        self._statistics = frozenset(each.name for each in manifest.parameters if each.role == "statistic")
        floats = [each for each in manifest.state if each.dtype.startswith("float")]
        self._slots = [each.name for each in floats]
        self._counters = [each.name for each in manifest.state if each not in floats]
        self._gives_gradient = manifest.has_gradient
        self._pads_rows, self._batch_size = not manifest.mixes_rows, manifest.batch_size

    def require_defined_on(self, experiment: Experiment) -> None:
        self._reference.reset(experiment.initial)
        loss = self._reference.evaluate(experiment.batches[0]).get("loss", 0.0)
        if not np.isfinite(loss):
            raise UndefinedLossError(
                f"In Keras itself the model's loss is {loss} on made-up data, before anything is trained, so that "
                "nothing can be compared; the data was normally distributed, between 0 and 1, and 0 or 1.",
                hint="See which layer first returns what is no number: a logarithm, a root or a quotient needs a "
                "bound. If the loss is a number on your own data, convert without verification (`verify=False`).",
            )

    def compute(self, experiment: Experiment) -> Measured:
        reference, first = self._reference, experiment.batches[0]
        reference.reset(experiment.initial)
        outputs = dict(zip(self._outputs, map(_exact, reference.predict(first)), strict=True))
        rows, weights = first.rows(experiment.rows), experiment.row_weights
        evaluation = self._numbers(reference.evaluate(rows, weights))
        probe, _ = self._probe(experiment, first, None)
        logs, after = self.train(experiment)
        partial = None
        if self._pads_rows and experiment.rows < self._batch_size:
            partial, log = self._probe(experiment, rows, weights)
            logs.update((f"partial {name}", value) for name, value in log.items())
        return Measured(
            outputs=outputs,
            evaluation=evaluation,
            probe=probe,
            partial=partial,
            logs=logs,
            moved=self.moved(experiment, after),
            counters={name: _find({**after.slots, **after.variables}, name) for name in self._counters},
            federated=self._federated(experiment) if experiment.is_federated else {},
            gradients=self._gradients(experiment) if self._gives_gradient else {},
        )

    def _federated(self, experiment: Experiment) -> Arrays:
        """One plain step, then two that are drawn back to where it led and pushed along the correction."""
        self._reference.reset(experiment.initial)
        first, *others = federated_batches(experiment.batches)
        self._reference.train(first, experiment.rate)
        self._reference.add_federated_terms(experiment.mu, experiment.correction)
        for batch in others:
            self._reference.train(batch, experiment.rate)
        return self.moved(experiment, self._reference.snapshot())

    def _gradients(self, experiment: Experiment) -> Arrays:
        self._reference.reset(experiment.initial)
        return {name: _exact(value) for name, value in self._reference.gradient(experiment.batches[0]).items()}

    def train(self, experiment: Experiment) -> tuple[dict[str, NDArray[np.float64]], Snapshot]:
        self._reference.reset(experiment.initial)
        logs: dict[str, NDArray[np.float64]] = {}
        for step, batch in enumerate(experiment.batches):
            log = self._numbers(self._reference.train(batch, experiment.rate))
            logs.update((f"{step} {name}", value) for name, value in log.items())
        return logs, self._reference.snapshot()

    def moved(self, experiment: Experiment, after: Snapshot) -> dict[str, NDArray[np.float64]]:
        return {name: _exact(_find(after.variables, name)) - experiment.initial[name] for name in self._parameters}

    def _numbers(self, log: Mapping[str, float]) -> dict[str, NDArray[np.float64]]:
        # What a model's own step returns is not always what its evaluation does, nor need it be called a loss.
        names = [name for name in self._logs if name in log] if self._logs_may_lack else self._logs
        return {name: np.asarray(log.get(name, np.nan), np.float64) for name in names}

    def _probe(
        self, experiment: Experiment, batch: Batch, weight: NDArray[np.float32] | None
    ) -> tuple[Arrays, dict[str, NDArray[np.float64]]]:
        self._reference.reset(experiment.initial)
        log = self._numbers(self._reference.train(batch, experiment.probe.rate, weight))
        after = self._reference.snapshot()
        slots = {name: _find(after.slots, name) for name in self._slots}
        return experiment.probe.reveal(self.moved(experiment, after), slots, self._statistics), log


def _with_fitting_rate(side: _Side, experiment: Experiment) -> Experiment:
    """Changes the learning rate until training on made-up data is stable and weights move far enough to be compared.

    Raises:
        ModelError: the loss does not stay a number at any rate.
        tf.errors.InvalidArgumentError: Keras refuses a batch at any rate.
    """
    tried = _try(side, experiment)
    if not tried.stable:
        return _slower(side, experiment, tried)
    chosen, enough = experiment, tried.enough
    for factor in () if enough else _FASTER:
        faster = replace(experiment, rate=experiment.rate * factor)
        tried = _try(side, faster)
        if not tried.stable:
            break
        chosen = faster
        if tried.enough:
            break
    return chosen


def _slower(side: _Side, experiment: Experiment, first: _Trial) -> Experiment:
    chosen = experiment if first.finite else None
    for factor in _SLOWER:
        slower = replace(experiment, rate=experiment.rate * factor)
        tried = _try(side, slower)
        chosen = slower if tried.finite else chosen
        if tried.stable:
            break
    if chosen is None and (refusal := tried.refusal or first.refusal):
        raise refusal
    if chosen is None:
        step, loss = next((step, loss) for step, loss in enumerate(first.losses, 1) if not np.isfinite(loss))
        raise ModelError(
            f"The model diverges in Keras itself, so that nothing can be compared: trained on made-up data, its loss "
            f"is {loss} in step {step} of {len(first.losses)} with a learning rate of {experiment.rate:.3g}, and no "
            f"number with {experiment.rate * _SLOWER[-1]:.3g} either.",
            hint="Bound what grows: a smaller learning rate, `clipnorm` of the optimizer, a normalization, a bound of "
            "a logarithm, root or quotient. If it trains on your own data, convert without verification "
            "(`verify=False`).",
        )
    return chosen


@dataclass(frozen=True)
class _Trial:
    """Holds how training went at one learning rate.

    Attributes:
        losses: of each step.
        enough: every weight moves by more than rounding errors.
        refusal: of a batch by Keras, which takes it at other weights if those are no numbers any more, as a layer that
            makes places in a table out of features.
    """

    losses: Sequence[float]
    enough: bool
    refusal: Exception | None = None

    @property
    def finite(self) -> bool:
        """True where every loss is a number."""
        return bool(np.all(np.isfinite(self.losses)))

    @property
    def stable(self) -> bool:
        """True where the losses stay where they began."""
        return self.finite and max(self.losses) <= 10 * abs(self.losses[0]) + 10


def _try(side: _Side, experiment: Experiment) -> _Trial:
    try:
        logs, after = side.train(experiment)
    except tf.errors.InvalidArgumentError as error:
        return _Trial([np.nan], False, error)
    moved = side.moved(experiment, after)
    enough = all(
        np.max(np.abs(change)) >= _ENOUGH_MOVED * np.max(np.abs(experiment.initial[name]))
        for name, change in moved.items()
        if change.size
    )
    losses = [float(value) for name, value in logs.items() if name.endswith(" loss")] or [0.0]
    return _Trial(losses, enough)


def _exact(array: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(array, np.float64)


def _find(arrays: Arrays, name: str) -> NDArray[Any]:
    if name not in arrays:
        raise UnsupportedModelError(
            f"The model file has {name!r}, which the Keras model does not have.",
            hint="Compare the file with the model that it was made from.",
        )
    return arrays[name]
