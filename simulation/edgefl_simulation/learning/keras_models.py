"""A compiled Keras model as learning processes take it, and the model files and interpreters that do its work.

This process has TensorFlow, as Keras models have; ai-edge-litert is the interpreter that can share a process with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgefl.errors import DataError, EdgeflError, InvalidSettingError, ModelError
from edgefl.hashing import sha256
from edgefl.manifest import ModelManifest
from edgefl.model_file import ModelFile
from edgefl.parts import FACADE, load
from edgefl_device_runtime.tasks import arrange
from edgefl_device_runtime.training import TrainableModel
from edgefl_device_runtime.training.data import prepare
from edgefl_server.aggregation import Blob, Expectation, ModelLimits
from edgefl_simulation.learning.batch_trainer import BatchTrainer
from edgefl_simulation.learning.batches import Batch, ClientData, as_batch, joined
from edgefl_simulation.learning.states import KerasWeights, Place
from edgefl_simulation.model_sources import Wanted, model_file

__all__ = ["Model", "Ready", "ReadyModels", "from_compiled_keras_model", "model_of"]


@dataclass(frozen=True, eq=False)
class Model:
    """A compiled Keras model, and a batch of what it is trained on.

    Attributes:
        keras_model: compiled; not changed.
        sample: the batch.
    """

    keras_model: Any
    sample: Batch = field(repr=False)


def from_compiled_keras_model(keras_model: Any, sample_batch: Any) -> Model:
    """Wraps a Keras model for a learning process.

    Args:
        keras_model: compiled with the loss, the metrics and the clients' optimizer.
        sample_batch: one batch as the clients' data has them: ``(x, y)``, ``(x, y, sample_weight)``, or a mapping or
            named tuple with these names; each an array ``[rows, …]`` or several, by name or in the model's order. Its
            number of rows is that of a step of clients who are arrays.

    Raises:
        DataError: the batch is no batch.
        ModelError: the model is none of Keras, or is not compiled.
    """
    if not callable(getattr(keras_model, "compile", None)) or not callable(getattr(keras_model, "get_weights", None)):
        raise ModelError(
            f"Expected a compiled Keras model, got {type(keras_model).__module__}.{type(keras_model).__name__}."
        )
    if not getattr(keras_model, "compiled", False):
        raise ModelError(
            "The model is not compiled with a loss and an optimizer.", hint="Call its compile(optimizer, loss) before."
        )
    sample = as_batch(sample_batch, "The sample batch")
    if sample.rows == 0:
        raise DataError("The sample batch has no rows.", hint="Take a batch of a client that has some.")
    if not getattr(keras_model, "built", True) and isinstance(sample.x, np.ndarray):
        keras_model.build((None, *sample.x.shape[1:]))
    return Model(keras_model, sample)


def model_of(model_fn: Callable[[], Model], client_optimizer_fn: Callable[[], Any] | None = None) -> Model:
    """Calls a function that makes a model.

    Args:
        model_fn: without arguments; returns what `from_compiled_keras_model` does.
        client_optimizer_fn: without arguments; returns the Keras optimizer of the clients; None: the model's own.

    Raises:
        ModelError: it returns something else.
        EdgeflError: what they raise.
    """
    if not callable(model_fn):
        raise ModelError(
            f"Expected a function that makes the model, got {type(model_fn).__name__}.", hint="Give model_fn itself."
        )
    model = model_fn()
    if not isinstance(model, Model):
        raise ModelError(
            f"model_fn expects to return what from_compiled_keras_model does, got {type(model).__name__}.",
            hint="return learning.from_compiled_keras_model(keras_model, sample_batch)",
        )
    if client_optimizer_fn is None:
        return model
    if not callable(client_optimizer_fn):
        raise InvalidSettingError(
            f"client_optimizer_fn expects a function that returns a Keras optimizer, got "
            f"{type(client_optimizer_fn).__name__}."
        )
    compiled = _converters().compile_model(model.keras_model, optimizer=client_optimizer_fn())
    return replace(model, keras_model=compiled)


@dataclass(frozen=True, eq=False)
class Ready:
    """A model file on an interpreter.

    Attributes:
        trainer: does a client's work.
        file: as tasks name it.
        manifest: of the file.
        expected: what an outcome has to fit, but for the task's own names.
    """

    trainer: BatchTrainer
    file: Blob
    manifest: ModelManifest
    expected: Expectation


class ReadyModels:
    """The model files of one Keras model: the size of a batch is fixed in a file, and clients' may be larger.

    Args:
        model: the Keras model.
        num_threads: of an interpreter.

    Attributes:
        manifest: of the file for batches like the sample; parameters and metrics are the same in all of them.
        weights: the initial ones, float32 ``[layout.size]``.
        keras: the way from there to Keras.

    Raises:
        DataError: the sample batch does not fit the model.
        EdgeflError: what the conversion raises.
    """

    def __init__(self, model: Model, num_threads: int = 1) -> None:
        self._model, self._num_threads = model, num_threads
        self._ready: dict[int, Ready] = {}
        data = self._file_for(model.sample.rows)
        file = ModelFile(data)
        self.manifest, self.weights = file.manifest, file.initial_weights()
        self._fit_sample()
        self._ready[model.sample.rows] = self._loaded(data)
        self.keras = _keras_weights(model.keras_model, self.manifest)

    @property
    def usual(self) -> Ready:
        """The one for batches like the sample, which also evaluates."""
        return self._ready[self._model.sample.rows]

    def for_client(self, data: ClientData) -> Ready:
        """The one that takes a client's batches as they are."""
        usual = self._model.sample.rows
        largest = max(data.batches, default=usual)
        # Where the rows of a batch are mixed, it can be neither filled up nor cut.
        rows = largest if self.manifest.mixes_rows else max(largest, usual)
        if rows not in self._ready:
            self._ready[rows] = self._loaded(self._file_for(rows))
        return self._ready[rows]

    def _file_for(self, rows: int) -> bytes:
        return model_file(self._model.keras_model, Wanted(batch_size=rows))

    def _fit_sample(self) -> None:
        try:
            examples = arrange(joined([self._model.sample], self.manifest), self.manifest)
            prepare(self.manifest, "train", examples.x, examples.y, examples.sample_weight)
        except DataError as error:
            raise DataError(f"The sample batch does not fit the model: {error.message}", hint=error.hint) from error

    def _loaded(self, data: bytes) -> Ready:
        trained = TrainableModel(data, self._num_threads)
        manifest = trained.manifest
        layout = manifest.layout
        expected = Expectation(
            "",
            "",
            manifest.layout_hash,
            layout.weight_size,
            layout.statistic_size,
            limits=ModelLimits.of(manifest),
        )
        return Ready(BatchTrainer(trained), Blob(sha256(data), len(data)), manifest, expected)


def _keras_weights(keras_model: Any, manifest: ModelManifest) -> KerasWeights:
    """The places of a Keras model's weights in the vector of what is trained."""
    names, arrays = _converters().names_of_weights(keras_model), keras_model.get_weights()
    offsets = manifest.layout.offsets
    unknown = set(offsets) - set(names)
    if unknown:
        raise EdgeflError(f"The model file trains {sorted(unknown)[0]!r}, which is none of the Keras model's weights.")
    places, fixed = [], {}
    for name, array in zip(names, map(np.asarray, arrays), strict=True):
        places.append(Place(name, array.shape, offsets.get(name, -1)))
        if name not in offsets:
            fixed[name] = np.array(array)
    return KerasWeights(tuple(places), fixed)


def _converters() -> Any:
    return load(FACADE["convert"])
