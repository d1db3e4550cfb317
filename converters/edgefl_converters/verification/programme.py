"""Holds what a runtime is asked to do with a model file, as one list of calls, and what it answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import ModelFileError
from edgefl.manifest import ROW_SIGNATURES, ModelManifest
from edgefl.metrics import finalise
from edgefl_converters.verification.made_up_batches import Batch, federated_batches
from edgefl_converters.verification.runtimes import Call

__all__ = ["Answers", "Programme", "State"]

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class State:
    """Everything that training changes, as a runtime returned it.

    Attributes:
        variables: parameters by name, in their own shapes.
        slots: optimizer state by name.
    """

    variables: Arrays
    slots: Arrays


@dataclass(frozen=True)
class Answers:
    """Holds what one runtime returned, by the meaning of the calls.

    Attributes:
        initial: parameters before anything was done.
        outputs: of the first batch before training, by name.
        evaluation: ``loss`` and metrics of the first rows of the first batch, padded, weighted, before training.
        probe: state after one step on the first batch with the probing learning rate.
        partial: state after one step on the first rows of the first batch, padded; None where rows mix.
        partial_log: ``loss`` and metrics of that step.
        logs: ``loss`` and metrics of each training step.
        trained: state after all training steps.
        federated: state after steps with a proximal term and a correction; None where the file has neither.
        gradients: what the signature ``gradient`` returned, by weight; empty where there is none.
        identities: name of a law to the two states that it says are equal to the last bit.
    """

    initial: Arrays
    outputs: Arrays
    evaluation: Mapping[str, float]
    probe: State
    partial: State | None
    partial_log: Mapping[str, float]
    logs: tuple[Mapping[str, float], ...]
    trained: State
    federated: State | None
    gradients: Arrays
    identities: Mapping[str, tuple[State, State]]


@dataclass
class Programme:
    """The calls that verification makes, the same on every runtime.

    Args:
        manifest: of the file.
        batches: one for each training step; the first one also serves for everything else.
        probe_rate: learning rate of the step that shows the gradient.
        rate: learning rate of the training steps.
        partial_rows: real rows of the padded batch.
        partial_weight: the user's weights of these rows.
        mu: of the proximal term, where the file has one.
        correction: by weight, where the file takes one.
        suffix: of the names of the signatures that take rows, where the manifest is that of a further batch size.
    """

    manifest: ModelManifest
    batches: Sequence[Batch]
    probe_rate: float
    rate: float
    partial_rows: int
    partial_weight: NDArray[np.float32]
    mu: float = 0.0
    correction: Arrays = field(default_factory=dict)
    suffix: str = ""
    calls: list[Call] = field(default_factory=list)

    def __post_init__(self) -> None:
        first, size = self.batches[0], self.manifest.batch_size
        self._initial = self._add("get_weights", fresh=True)
        self._infer = self._add("infer", dict(zip(self.manifest.inputs, first.inputs, strict=True)))
        weight = np.zeros(size, np.float32)
        weight[: self.partial_rows] = self.partial_weight
        self._evaluate = self._add("evaluate", {**self._data(first), "sample_weight": weight})
        self._train(first, self.probe_rate)
        self._probe = self._add("get_state")
        self._partial: int | None = None
        if not self.manifest.mixes_rows and self.partial_rows < size:
            # What a trainer sends, so that the graph's division by the batch size becomes one by the real rows.
            scaled = weight * np.float32(size / self.partial_rows)
            self._partial_step = self._train(first, self.probe_rate, scaled, fresh=True)
            self._partial = self._add("get_state")
        self._steps = [self._train(batch, self.rate, fresh=index == 0) for index, batch in enumerate(self.batches)]
        self._trained = self._add("get_state")
        self._repeat()
        self._federated = self._add_federated() if self.mu or self.correction else None
        self._gradient = self._add("gradient", self._given(first), fresh=True) if self.manifest.has_gradient else None

    def read(self, outputs: Sequence[Arrays]) -> Answers:
        """Gives a runtime's outputs their meaning.

        Args:
            outputs: one dictionary for each call, by tensor key.
        """
        named = [
            {spec.name: output[spec.tensor] for spec in self.manifest.signatures[call.signature].outputs}
            for call, output in zip(self.calls, outputs, strict=True)
        ]
        state = [self._state(output) for output in named]
        return Answers(
            initial=state[self._initial].variables,
            outputs={name: named[self._infer][name] for name in self.manifest.outputs},
            evaluation=self._evaluation(named[self._evaluate]),
            probe=state[self._probe],
            partial=None if self._partial is None else state[self._partial],
            partial_log={} if self._partial is None else self._log(named[self._partial_step]),
            logs=tuple(self._log(named[index]) for index in self._steps),
            trained=state[self._trained],
            federated=None if self._federated is None else state[self._federated],
            gradients={} if self._gradient is None else self._gradients(named[self._gradient]),
            identities={
                "get_state and set_state restore training": (state[self._ahead], state[self._restored]),
                "set_weights and reset_optimizer begin anew": (state[self._probe], state[self._anew]),
            },
        )

    def _repeat(self) -> None:
        """Goes one step on, back, and the same step again; then back to the very beginning."""
        first = self.batches[0]
        self._train(first, self.rate)
        self._ahead = self._add("get_state")
        self._carry("set_state", self._trained)
        self._train(first, self.rate)
        self._restored = self._add("get_state")
        self._carry("set_weights", self._initial)
        self._add("reset_optimizer")
        self._train(first, self.probe_rate)
        self._anew = self._add("get_state")

    def _add_federated(self) -> int:
        """One plain step, then two that are drawn back to where it led and pushed along the correction."""
        first, *others = federated_batches(self.batches)
        self._train(first, self.rate, fresh=True)
        if self.mu:
            self._add("set_reference")
        if self.correction:
            self._add("set_correction", self.correction)
        for batch in others:
            self._train(batch, self.rate, mu=self.mu)
        return self._add("get_state")

    def _train(
        self,
        batch: Batch,
        rate: float,
        weight: NDArray[np.float32] | None = None,
        *,
        mu: float = 0.0,
        fresh: bool = False,
    ) -> int:
        given = {**self._given(batch, weight), "learning_rate": np.array([rate], np.float32)}
        if self.manifest.has_proximal_term:
            given["mu"] = np.array([mu], np.float32)
        return self._add("train", given, fresh=fresh)

    def _given(self, batch: Batch, weight: NDArray[np.float32] | None = None) -> dict[str, NDArray[Any]]:
        given = {
            **self._data(batch),
            "sample_weight": np.ones(self.manifest.batch_size, np.float32) if weight is None else weight,
        }
        if self.manifest.draws_random_numbers:
            given["seed"] = np.array([batch.seed], np.int32)
        return given

    def _add(self, signature: str, named: Arrays | None = None, *, fresh: bool = False) -> int:
        keys = {spec.name: spec.tensor for spec in self._specs(signature)}
        signature = f"{signature}{self.suffix}" if signature in ROW_SIGNATURES else signature
        self.calls.append(Call(signature, {keys[name]: array for name, array in (named or {}).items()}, fresh=fresh))
        return len(self.calls) - 1

    def _carry(self, signature: str, source: int) -> int:
        """Calls a setter with everything that an earlier getter returned."""
        returned = {spec.name: spec.tensor for spec in self.manifest.signatures[self.calls[source].signature].outputs}
        carried = {spec.tensor: (source, returned[spec.name]) for spec in self._specs(signature)}
        self.calls.append(Call(signature, carried=carried))
        return len(self.calls) - 1

    def _specs(self, signature: str) -> Sequence[Any]:
        if signature not in self.manifest.signatures:
            raise ModelFileError(
                f"The model file has no signature {signature!r}.", hint="Make it again with `edgefl convert`."
            )
        return self.manifest.signatures[signature].inputs

    def _data(self, batch: Batch) -> dict[str, NDArray[Any]]:
        return {
            **dict(zip(self.manifest.inputs, batch.inputs, strict=True)),
            **{target.name: array for target, array in zip(self.manifest.targets, batch.targets, strict=True)},
        }

    def _state(self, output: Arrays) -> State:
        shapes = {parameter.name: parameter.shape for parameter in self.manifest.parameters}
        shapes_of_state = {variable.name: variable.shape for variable in self.manifest.state}
        return State(
            {name: output[name].reshape(shape) for name, shape in shapes.items() if name in output},
            {name: output[name].reshape(shape) for name, shape in shapes_of_state.items() if name in output},
        )

    def _gradients(self, output: Arrays) -> Arrays:
        shapes = {f"gradient/{parameter.name}": parameter for parameter in self.manifest.parameters}
        return {
            shapes[name].name: np.reshape(value, shapes[name].shape).astype(np.float64)
            for name, value in output.items()
            if name in shapes
        }

    def _log(self, output: Arrays) -> dict[str, float]:
        return {"loss": float(np.sum(output["loss"])), **self._metrics(output)}

    def _evaluation(self, output: Arrays) -> dict[str, float]:
        return {
            "loss": float(np.sum(output["loss_sum"]) / np.sum(output["rows"])),
            "rows": float(np.sum(output["rows"])),
            **self._metrics(output),
        }

    def _metrics(self, output: Arrays) -> dict[str, float]:
        states = {state: output[state] for metric in self.manifest.metrics for state in metric.states}
        return finalise(self.manifest.metrics, states)
