"""Runs signatures that change nothing over any number of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import DataError, InvalidSettingError
from edgefl.manifest import ModelManifest
from edgefl.metrics import add_states, finalise
from edgefl.wire.vocabulary import BatchPolicy
from edgefl_device_runtime.training.batches import BatchBuffers, batches
from edgefl_device_runtime.training.callbacks import Callbacks
from edgefl_device_runtime.training.data import Dataset, Intake
from edgefl_device_runtime.training.interpreter import Arrays, Interpreter
from edgefl_device_runtime.training.sources import Source, require_alone, source_of, unpacked
from edgefl_device_runtime.training.structures import nest

__all__ = ["Rows", "as_list", "evaluate_rows", "predict_rows", "sum_states"]


class Rows:
    """The rows that a signature is run over: arrays, checked at once, or batches as a source yields them.

    Args:
        manifest: the model's.
        signature: ``evaluate`` or ``infer``.
        x: arrays, a source of batches, or a data set that was prepared before.
        y: targets.
        sample_weight: of each row.
        batch_size: how many rows a step of `steps` has; what is computed does not depend on it.
        steps: how many batches at most; None for all.
        with_targets: False where the signature takes none.

    Attributes:
        steps: batches that there will be; None where that is not known.
    """

    def __init__(
        self,
        manifest: ModelManifest,
        signature: str,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        batch_size: int | None = None,
        steps: int | None = None,
        with_targets: bool = True,
    ) -> None:
        self._intake = Intake(manifest, signature, with_targets=with_targets)
        self._source = source_of(x)
        self._with_targets, self._most = with_targets, steps
        self.signature = signature
        if self._source is None:
            data = x if isinstance(x, Dataset) else self._intake.prepare(x, y, sample_weight)
            wanted = data.rows if steps is None else min(data.rows, steps * (batch_size or manifest.batch_size))
            self._whole = (data, wanted)
            self.steps: int | None = -(-wanted // manifest.batch_size)
        else:
            require_alone(self._source, y=y, sample_weight=sample_weight, batch_size=batch_size)
            self.steps = self._source.steps if steps is None else steps

    def parts(self) -> Iterator[tuple[Dataset, int]]:
        """Yields what was given, as a whole or batch by batch, and how many of its rows are wanted.

        Raises:
            DataError: a batch does not fit the model, or there is none.
        """
        if self._source is None:
            yield self._whole
            return
        for data in self._batches(self._source):
            yield data, data.rows

    def _batches(self, source: Source) -> Iterator[Dataset]:
        number = 0
        for number, batch in enumerate(source.passes(0), start=1):
            x, y, sample_weight = unpacked(source, batch)
            yield self._intake.prepare(x, y, sample_weight) if self._with_targets else self._intake.prepare(x)
            if number == self._most:
                return
        if number == 0:
            raise DataError(
                f"The {source.kind} has no batches{' any more' if source.once else ''}.",
                hint="A generator can be read once: give one that begins anew." if source.once else None,
            )


def run_batches(
    interpreter: Interpreter, manifest: ModelManifest, rows: Rows, begin: Sequence[Callable[..., None]] = ()
) -> Iterator[tuple[Arrays, int]]:
    """Runs a signature batch by batch.

    Args:
        interpreter: the loaded model.
        manifest: its manifest.
        rows: over what.
        begin: called before each batch with its number.

    Yields:
        The outputs by tensor, and how many of their rows are real: those at the beginning.
    """
    number = 0
    for data, wanted in rows.parts():
        size = manifest.batch_size_for(wanted)
        name = rows.signature if size == manifest.batch_size else f"{rows.signature}_{size}"
        tensors = {spec.name: spec.tensor for spec in manifest.signatures[name].inputs}
        call = interpreter.signature(name)
        buffers = BatchBuffers(data.columns, tensors, size, data.sample_weight, divides=False)
        inputs = dict(buffers.arrays)
        if "sample_weight" in tensors:
            inputs[tensors["sample_weight"]] = buffers.weights
        for real in buffers.fill(batches(np.arange(wanted), size, size, BatchPolicy.PAD)):
            for hook in begin:
                hook(number, {})
            yield call(inputs), real
            number += 1


def sum_states(
    interpreter: Interpreter, manifest: ModelManifest, rows: Rows, callbacks: Callbacks | None = None
) -> dict[str, NDArray[np.float64]]:
    """The states of loss and metrics, summed over all rows, by name."""
    specs = manifest.signatures["evaluate"].outputs
    sums: dict[str, NDArray[np.float64]] = {}
    begin = callbacks.hooks("on_test_batch_begin") if callbacks else ()
    end = callbacks.hooks("on_test_batch_end") if callbacks else ()
    for number, (outputs, _) in enumerate(run_batches(interpreter, manifest, rows, begin)):
        add_states(sums, {spec.name: outputs[spec.tensor].reshape(spec.shape) for spec in specs})
        for hook in end:
            hook(number, finalise(manifest.metrics, sums))
    return sums


def evaluate_rows(
    interpreter: Interpreter, manifest: ModelManifest, rows: Rows, callbacks: Callbacks
) -> dict[str, float]:
    """Loss and metrics over all rows, by name; callbacks are told of every batch."""
    callbacks.tell("on_test_begin", {})
    values = finalise(manifest.metrics, sum_states(interpreter, manifest, rows, callbacks))
    callbacks.tell("on_test_end", values)
    return values


def predict_rows(interpreter: Interpreter, manifest: ModelManifest, rows: Rows, callbacks: Callbacks) -> Any:
    """The model's outputs for all rows, nested as the model nests them."""
    specs = {spec.name: spec for spec in manifest.signatures["infer"].outputs}
    wanted = [specs[name] for name in manifest.outputs]
    pieces: list[list[NDArray[Any]]] = [[] for _ in wanted]
    end = callbacks.hooks("on_predict_batch_end")
    callbacks.tell("on_predict_begin", {})
    called = run_batches(interpreter, manifest, rows, callbacks.hooks("on_predict_batch_begin"))
    for number, (outputs, real) in enumerate(called):
        for piece, spec in zip(pieces, wanted, strict=True):
            piece.append(outputs[spec.tensor][:real])
        for hook in end:
            hook(number, {})
    callbacks.tell("on_predict_end", {})
    return nest(manifest.output_structure, [np.concatenate(piece) for piece in pieces])


def as_list(manifest: ModelManifest, values: Mapping[str, float]) -> Any:
    """The values as Keras returns them unless it is asked for a dict: a list, or one number where there is one.

    Raises:
        InvalidSettingError: Keras's list would have the outputs' own losses too, which are not computed.
    """
    if len(manifest.targets) > 1:
        raise InvalidSettingError(
            "return_dict=False is for one output: Keras's list holds each output's own loss, which a model file does "
            "not compute.",
            hint="Take the dict.",
        )
    found = list(values.values())
    return found[0] if len(found) == 1 else found
