"""The signature ``train``, called with what has changed since the last step, and nothing else around it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.manifest import ModelManifest, Signature
from edgefl_device_runtime.training.interpreter import Interpreter

__all__ = ["TrainSignature"]


class _AnySignature:
    """A signature that is not the first one of the file, with the face of one that is; each call costs some µs more."""

    def __init__(self, interpreter: Interpreter, name: str, signature: Signature) -> None:
        self.inputs = {spec.tensor: spec.tensor for spec in signature.inputs}
        self.outputs = {spec.tensor: spec.tensor for spec in signature.outputs}
        self._call = interpreter.signature(name)
        self._given: dict[str, NDArray[Any]] = {}
        self._found: Mapping[str, NDArray[Any]] = {}
        self.feed = self._given.__setitem__

    def fetch(self, tensor: str) -> NDArray[Any]:
        return self._found[tensor]

    def run(self) -> None:
        self._found = self._call(self._given)


class TrainSignature:
    """Takes optimizer steps.

    Args:
        interpreter: the loaded model.
        manifest: its manifest, or what it is for one of the file's further batch sizes.
        name: what the file calls the signature.
    """

    def __init__(self, interpreter: Interpreter, manifest: ModelManifest, name: str = "train") -> None:
        signature = manifest.signatures["train"]
        first = name == "train"
        train: Any = interpreter.first_signature(name) if first else _AnySignature(interpreter, name, signature)
        inputs = {spec.name: train.inputs[spec.tensor] for spec in signature.inputs}
        outputs = {spec.name: train.outputs[spec.tensor] for spec in signature.outputs}
        shapes = {spec.name: spec.shape for spec in signature.outputs}
        self._feed, self._run, self._fetch = train.feed, train.run, train.fetch
        self._data = [inputs[name] for name in (*manifest.inputs, *(target.name for target in manifest.targets))]
        self._row_weights, self._rate, self._mu = inputs["sample_weight"], inputs["learning_rate"], inputs.get("mu")
        self._seed_input = inputs.get("seed")
        self._seed = np.zeros(1, np.int32)
        self._loss = outputs["loss"]
        self._given_rate: float | None = None
        self._given_mu: float | None = None
        self._sums = {name: np.zeros(shapes[name]) for metric in manifest.metrics for name in metric.states}
        self._added = [(outputs[name], sums) for name, sums in self._sums.items()]

    def begin(self, learning_rate: float, mu: float = 0.0) -> None:
        """Sets what holds for all following steps, and forgets the metrics' states.

        Args:
            learning_rate: of every step.
            mu: factor of the proximal term, where the file has one.
        """
        self.set_learning_rate(learning_rate)
        if self._mu is not None and mu != self._given_mu:
            self._feed(self._mu, np.full(1, mu, np.float32))
            self._given_mu = mu
        for sums in self._sums.values():
            sums.fill(0.0)

    def set_learning_rate(self, learning_rate: float) -> None:
        """Sets it for all following steps."""
        if learning_rate != self._given_rate:
            self._feed(self._rate, np.full(1, learning_rate, np.float32))
            self._given_rate = learning_rate

    def step(
        self, data: Iterable[NDArray[np.generic]], row_weights: NDArray[np.float32], seed: int | np.int32
    ) -> float:
        """Takes one optimizer step.

        Args:
            data: inputs, then targets, each of shape ``[B, ...]``, C-contiguous and of just the type that the model
                takes; they are read during the call only.
            row_weights: float32 ``[B]``.
            seed: of this step; ignored by a model that draws no random numbers.

        Returns:
            The loss of the batch before the step.
        """
        feed = self._feed
        for index, array in zip(self._data, data):
            feed(index, array)
        feed(self._row_weights, row_weights)
        if self._seed_input is not None:
            self._seed[0] = seed
            feed(self._seed_input, self._seed)
        self._run()
        for index, sums in self._added:
            np.add(sums, self._fetch(index), sums)
        return self._fetch(self._loss).item()  # type: ignore[no-any-return]

    def states(self) -> dict[str, NDArray[np.float64]]:
        """The metrics' states, summed over all steps since they were last taken, by name, as new arrays."""
        return {name: sums.copy() for name, sums in self._sums.items()}

    def take_states(self) -> dict[str, NDArray[np.float64]]:
        """The same, and forgets them."""
        states = self.states()
        for sums in self._sums.values():
            sums.fill(0.0)
        return states
