"""Finds what Keras computes, and how sure one can be of it: in float64, in float32, and in float32 with rounding.

How much rounding can change a result is measured, not guessed: Keras itself runs in float32 from weights and inputs
disturbed in their last bits. Networks with kinks (ReLU) amplify that by orders of magnitude, smooth ones do not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import ModelError, UnsupportedModelError, first_line
from edgefl.manifest import ModelManifest
from edgefl_converters.training_step.specification import Specification
from edgefl_converters.verification.made_up_batches import Batch, federated_batches
from edgefl_converters.verification.probing import Probe
from edgefl_converters.verification.reference import Reference, Snapshot

__all__ = ["Expectation", "Experiment", "Measured", "look_closer", "measure"]

Arrays = Mapping[str, NDArray[Any]]

_DISTURBED_RUNS = 3
_LAST_BITS = 2.0**-22
"""Relative size of the disturbance: about two units in the last place of a float32."""
_CLOSER_RUNS = 6
_ROUNDING_OF_A_STEP = 2.0**-19
"""Relative size of what a runtime's own order of summation does to the gradient of a convolution."""
_SLOWER, _FASTER = (0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-6), (10.0, 100.0)
"""Factors on the compiled learning rate, tried until training is stable and every weight moves far enough."""
_ENOUGH_MOVED = 1e-4
"""The least movement, as a share of the largest weight: a thousand times its rounding error."""


@dataclass(frozen=True)
class Experiment:
    """Says what both sides compute.

    Attributes:
        initial: the weights that they begin from, by stable name.
        batches: one for each training step; the first one also serves for everything else.
        rows: real rows of the partial batch.
        row_weights: the user's weights of these rows.
        probe: how the gradient is read off.
        rate: learning rate of the training steps.
        proximal_weight: weight of the proximal term times the learning rate, in the steps that have one; 0 where the
            file has none.
        correction: what is added to the gradient in the same steps, by weight; empty where the file adds nothing.
    """

    initial: Mapping[str, NDArray[np.float32]]
    batches: Sequence[Batch]
    rows: int
    row_weights: NDArray[np.float32]
    probe: Probe
    rate: float
    proximal_weight: float = 0.0
    correction: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def mu(self) -> float:
        """The weight of the proximal term.

        Steps are short, so a weight of ordinary size would hardly be felt after a few.
        """
        return float(np.float32(self.proximal_weight / self.rate))

    @property
    def is_federated(self) -> bool:
        """Tells whether the file can change the gradient for federated algorithms."""
        return bool(self.proximal_weight or self.correction)


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
    otherwise: Callable[[], Sequence[Batch]],
    generator: np.random.Generator,
) -> tuple[Experiment, Expectation]:
    """Computes in Keras what a model file is to compute.

    Args:
        specification: of the Keras model.
        manifest: of the file; says which parameters and state there are.
        experiment: with the compiled learning rate.
        otherwise: other batches, for a model that is not defined on those of the experiment.
        generator: for the disturbances.

    Returns:
        The experiment with the batches and the learning rate that were used, and what Keras computes in it.

    Raises:
        UnsupportedModelError: Keras cannot rebuild the model from its configuration.
        ModelError: the model diverges in Keras itself.
    """
    side = _Side(Reference(specification, "float32"), manifest)
    if not side.is_defined_on(experiment):
        experiment = replace(experiment, batches=otherwise())
    experiment = _with_fitting_rate(side, experiment)
    plain = side.compute(experiment)
    disturbed = [side.compute(_disturb(experiment, generator)) for _ in range(_DISTURBED_RUNS)]
    try:
        exact = _Side(Reference(specification, "float64"), manifest).compute(experiment)
        reference = "float64"
    except Exception as error:  # any failure of a layer that insists on float32
        exact, reference = plain, f"float32, because the model does not run in float64: {first_line(error)}"
    return experiment, Expectation(reference, exact, plain, disturbed)


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
    side = _Side(Reference(specification, "float32"), manifest)
    runs = []
    for _ in range(_CLOSER_RUNS):
        disturbed = _disturb(experiment, generator, _ROUNDING_OF_A_STEP)
        logs, after = side.train(disturbed)
        logs = {**expectation.plain.logs, **logs}
        runs.append(replace(expectation.plain, logs=logs, moved=side.moved(disturbed, after)))
    return replace(expectation, disturbed=(*expectation.disturbed, *runs))


class _Side:
    """Runs experiments in one Keras copy of the model."""

    def __init__(self, reference: Reference, manifest: ModelManifest) -> None:
        self._reference = reference
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

    def is_defined_on(self, experiment: Experiment) -> bool:
        """Tells whether the loss of the first batch is a number, before anything is trained."""
        self._reference.reset(experiment.initial)
        return bool(np.isfinite(self._reference.evaluate(experiment.batches[0])["loss"]))

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
        return {name: np.asarray(log.get(name, np.nan), np.float64) for name in self._logs}

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
    if chosen is None:
        step = next((step for step, loss in enumerate(first.losses, 1) if not np.isfinite(loss)), 1)
        raise ModelError(
            f"The model diverges in Keras itself, so that nothing can be compared: on made-up data its loss is "
            f"{first.losses[step - 1]} in step {step} of {len(first.losses)} with a learning rate of "
            f"{experiment.rate:.3g}, and no number with {experiment.rate * _SLOWER[-1]:.3g} either.",
            hint="Train a few steps in Keras on normally distributed numbers (on numbers between 0 and 1, if it is not "
            "defined on those) and see which layer first returns what is no number: a logarithm, a root or a quotient "
            "needs a bound. Or convert without verification (`verify=False`).",
        )
    return chosen


@dataclass(frozen=True)
class _Trial:
    """Holds how training went at one learning rate.

    Attributes:
        losses: of each step.
        enough: every weight moves by more than rounding errors.
    """

    losses: Sequence[float]
    enough: bool

    @property
    def finite(self) -> bool:
        """True where every loss is a number."""
        return bool(np.all(np.isfinite(self.losses)))

    @property
    def stable(self) -> bool:
        """True where the losses stay where they began."""
        return self.finite and max(self.losses) <= 10 * abs(self.losses[0]) + 10


def _try(side: _Side, experiment: Experiment) -> _Trial:
    logs, after = side.train(experiment)
    moved = side.moved(experiment, after)
    enough = all(
        np.max(np.abs(change)) >= _ENOUGH_MOVED * np.max(np.abs(experiment.initial[name]))
        for name, change in moved.items()
        if change.size
    )
    return _Trial([float(value) for name, value in logs.items() if name.endswith(" loss")], enough)


def _disturb(experiment: Experiment, generator: np.random.Generator, size: float = _LAST_BITS) -> Experiment:
    def last_bits(array: NDArray[Any]) -> NDArray[Any]:
        if array.dtype != np.float32:
            return array
        return np.asarray(array * (1.0 + size * generator.uniform(-1.0, 1.0, array.shape)), np.float32)

    return replace(
        experiment,
        initial={name: last_bits(value) for name, value in experiment.initial.items()},
        batches=[
            Batch(tuple(_unless_whole(each, last_bits) for each in batch.inputs), batch.targets, batch.seed)
            for batch in experiment.batches
        ],
    )


def _unless_whole(array: NDArray[Any], change: Callable[[NDArray[Any]], NDArray[Any]]) -> NDArray[Any]:
    """Leaves tokens alone that a model takes as floats."""
    return array if np.array_equal(array, np.round(array)) else change(array)


def _exact(array: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(array, np.float64)


def _find(arrays: Arrays, name: str) -> NDArray[Any]:
    if name not in arrays:
        raise UnsupportedModelError(
            f"The model file has {name!r}, which the Keras model does not have.",
            hint="Compare the file with the model that it was made from.",
        )
    return arrays[name]
