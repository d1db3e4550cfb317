"""Turns Keras models into TFLite files that train, checks them, and turns trained weights back into Keras models.

Needs the extra [convert]. Importing this package imports no TensorFlow; calling its functions does.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from edgefl.errors import MissingDependencyError
from edgefl.parts import install_line
from edgefl.targets import ALL
from edgefl_converters.flatbuffer.quiet import quiet_functions
from edgefl_converters.models.sources.modules import CustomObjects, known_objects
from edgefl_converters.results import ConversionResult, ExportResult
from edgefl_converters.settings.fine_tuning import FineTuning
from edgefl_converters.settings.input_shapes import InputShape, TargetShape
from edgefl_converters.settings.options import BatchSizes, Options, batch_sizes

if TYPE_CHECKING:
    import keras

    from edgefl_converters.verification.report import VerificationReport

__all__ = [
    "ConversionResult",
    "ExportResult",
    "FineTuning",
    "compile_model",
    "convert",
    "explain",
    "export",
    "fingerprint",
    "load_model",
    "names_of_weights",
    "verify",
]


def convert(
    model: Any,
    out: str | os.PathLike[str],
    *,
    loss: Any = None,
    optimizer: Any = None,
    metrics: Any = None,
    batch_size: BatchSizes = 32,
    input_shape: InputShape | None = None,
    target_shape: TargetShape | None = None,
    fine_tuning: FineTuning | None = None,
    local: str | Sequence[str] = (),
    algorithms: str | Sequence[str] = (),
    quantize_frozen: str | None = None,
    target: str = ALL,
    micro_batch: int | None = None,
    without_passes: str | Sequence[str] = (),
    custom_objects: CustomObjects = None,
    normalization: str | os.PathLike[str] | None = None,
    verify: bool = True,
    on_progress: Callable[[str], None] | None = None,
    on_layers: Callable[[dict[str, Any]], None] | None = None,
) -> ConversionResult:
    """Converts a Keras model to a ``.tflite`` file that trains with builtin ops only.

    The model must be compiled, or `loss` and `optimizer` must be given; then it is compiled with them, in place.

    Args:
        model: a Keras model, the path of a ``.keras`` or ``.h5`` file or of a SavedModel folder of a Keras model, or
            ``"module:function"`` that returns a model.
        out: the file to write; ``<out>.report.json`` is written beside it. Nothing is written on failure.
        loss: as `keras.Model.compile` takes it.
        optimizer: as `keras.Model.compile` takes it.
        metrics: as `keras.Model.compile` takes them; averages only.
        batch_size: rows of every batch; fixed in the file. Several numbers: the file has signatures for each of them,
            and training takes the smallest that fits.
        input_shape: for models with unknown dimensions, the shape without the batch: ``(100, 6)``, or a dictionary by
            input name. The model is made anew with it and keeps its weights.
        target_shape: for losses of your own, the shape of a row of the targets where it is neither the output's nor
            that of class numbers: ``(2,)``, ``()`` for one number, or a dictionary by output name.
        fine_tuning: what is trained; everything that the model itself trains if not given.
        local: patterns of parameters that never leave a device, as in `FineTuning`: personal layers (Arivazhagan et al.
            2019, FedPer), or the normalisation of each device's own data (Li et al. 2021, FedBN).
        algorithms: federated algorithms that need more than a delta: ``fedprox``, ``scaffold``, ``feddyn``, ``fedsgd``.
            Each adds inputs or signatures to the file; without them it has none.
        quantize_frozen: ``float16`` or ``int8`` stores large frozen weights so; what is trained stays float32.
            ``int8-dynamic`` computes products with them in int8 too, on ai-edge-litert alone. The report says what this
            changes of outputs and gradients.
        target: the runtimes that must be able to run the file: ``tflite-2.14`` (tflite-runtime), ``litert-2``
            (ai-edge-litert) or ``all``. A model with an op that one of them does not know is refused.
        micro_batch: computes a batch so many rows at a time, which must divide it: the same step in the memory of fewer
            rows. Models that mix the rows of a batch (batch normalisation) are refused.
        without_passes: names of passes over the file to leave out, to see what they do; see docs/lowerings.md.
        custom_objects: classes and functions of your own that a file refers to, by name; or names of modules that
            define them, whose code is run.
        normalization: a file of statistics of a fleet's data, from ``edgefl run statistics``: mean and variance for the
            Normalization layers behind the model's inputs, in place. Or "identity": they do nothing in this file, with
            which devices sum up their data.
        verify: train the file on every installed runtime of the target beside Keras, and refuse it where they differ.
        on_progress: called with one line at each stage; without it, one sentence on standard error tells the result.
        on_layers: called with what became of each layer (as in the report), on failure with those until it failed.

    Raises:
        MissingDependencyError: TensorFlow is not installed.
        ModelError: not a Keras model, not compiled, or its output does not fit the loss.
        UnsupportedModelError: a layer or op cannot be converted; the message names it.
        VerificationError: the file does not compute what Keras computes.
        InvalidSettingError: the batch size, a name that Keras does not know, or a pattern that matches nothing.
        StorageError: the file cannot be written.
    """
    largest, smaller = batch_sizes(batch_size)
    with _tensorflow(custom_objects):
        from edgefl_converters import converting

        result = converting.convert(
            model,
            out,
            loss=loss,
            optimizer=optimizer,
            metrics=metrics,
            batch_size=largest,
            input_shape=input_shape,
            options=Options(
                fine_tuning or FineTuning(),
                local,
                algorithms,
                quantize_frozen,
                target,
                micro_batch,
                without_passes,
                smaller,
                target_shape,
            ),
            normalization=normalization,
            verify=verify,
            on_progress=on_progress,
            on_layers=on_layers,
        )
    if on_progress is None:
        from edgefl.cli.output import progress

        progress(str(result))
    return result


def explain(
    model: Any,
    *,
    loss: Any = None,
    optimizer: Any = None,
    metrics: Any = None,
    batch_size: BatchSizes = 32,
    input_shape: InputShape | None = None,
    target_shape: TargetShape | None = None,
    fine_tuning: FineTuning | None = None,
    local: str | Sequence[str] = (),
    algorithms: str | Sequence[str] = (),
    quantize_frozen: str | None = None,
    target: str = ALL,
    micro_batch: int | None = None,
    without_passes: str | Sequence[str] = (),
    custom_objects: CustomObjects = None,
    on_layers: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Says what each layer of a model would be lowered to; writes and verifies nothing.

    Args:
        model: as `convert` takes it, like all other arguments.
        loss: as `convert` takes it.
        optimizer: as `convert` takes it.
        metrics: as `convert` takes them.
        batch_size: rows of every batch, as `convert` takes them.
        input_shape: for models with unknown dimensions.
        target_shape: as `convert` takes it.
        fine_tuning: as `convert` takes it.
        local: as `convert` takes it.
        algorithms: as `convert` takes them.
        quantize_frozen: as `convert` takes it.
        target: as `convert` takes it.
        micro_batch: as `convert` takes it.
        without_passes: as `convert` takes them.
        custom_objects: as `convert` takes them.
        on_layers: called with the result, on failure with the layers until it failed.

    Returns:
        For each layer (and the loss, the optimizer, the metrics): counts of TensorFlow ops ``kept`` and ``lowered``,
        of ``builtin`` TFLite ops, its ``parameters``, and ``training`` (``trained`` or ``frozen``).

    Raises:
        EdgeflError: whatever `convert` raises before verification.
    """
    largest, smaller = batch_sizes(batch_size)
    with _tensorflow(custom_objects):
        from edgefl_converters import explaining

        return explaining.explain(
            model,
            loss=loss,
            optimizer=optimizer,
            metrics=metrics,
            batch_size=largest,
            input_shape=input_shape,
            options=Options(
                fine_tuning or FineTuning(),
                local,
                algorithms,
                quantize_frozen,
                target,
                micro_batch,
                without_passes,
                smaller,
                target_shape,
            ),
            on_layers=on_layers,
        )


def verify(file: str | os.PathLike[str], against: Any, *, custom_objects: CustomObjects = None) -> VerificationReport:
    """Trains a model file on every installed runtime beside the Keras model that it was made from.

    Args:
        file: the model file.
        against: as `convert` takes a model. Its initial weights must be those of the file; only a function may draw
            new ones.
        custom_objects: as `convert` takes them.

    Returns:
        Every figure that was compared.

    Raises:
        VerificationError: the file does not compute what the model computes, or was not made from it.
        ModelFileError: the file is damaged or not a model file.
        ModelError: ``against`` is not a Keras model.
        MissingDependencyError: TensorFlow or every runtime is missing.
    """
    with _tensorflow(custom_objects):
        from edgefl_converters import verifying

        return verifying.verify(file, against)


def export(
    file: str | os.PathLike[str],
    weights: Any,
    out: str | os.PathLike[str],
    *,
    base: Any = None,
    adapters: str = "merged",
    quantize: str = "none",
    calibration: Any = None,
    custom_objects: CustomObjects = None,
) -> ExportResult:
    """Writes trained weights as a Keras model, as a plain TFLite model for inference, or by name.

    Args:
        file: the model file that was trained.
        weights: an ``.npz`` or ``.safetensors`` of named parameters, a mapping of them, a flat vector of the layout
            (also as ``.npy``), or None for the weights that the file holds.
        out: ends in ``.keras``; in ``.tflite`` for inference with any number of rows, float32 in and out; or in
            ``.safetensors`` or ``.npz`` for weights by name: all of the model's if `base` is given, else the file's
            parameters.
        base: the Keras model that the file was made from, as `convert` takes it; needed where the file does not hold
            the whole model: for frozen variables, also those beside LoRA adapters, and for classes of your own.
        adapters: what becomes of LoRA adapters in a ``.keras`` file: ``merged`` into the weights, for an ordinary
            model, or ``kept``; `load_model` reads them back.
        quantize: of an inference model: ``none``, ``float16`` (weights), ``dynamic`` (int8 weights) or ``int8``.
        calibration: for ``int8``, rows of every input: ``.npz`` by input name, ``.npy``, ``"module:function"``, or
            arrays.
        custom_objects: as `convert` takes them; the model can then be rebuilt without `base`.

    Returns:
        What was written; for inference models with the distance of its outputs from Keras's on both runtimes.

    Raises:
        DataError: the weights belong to another layout, or the calibration rows do not fit.
        UnsupportedModelError: the model cannot be rebuilt without `base`, or not be quantized so.
        VerificationError: the inference model does not compute what Keras computes.
        InvalidSettingError: an option that does not go with the kind of file.
        ModelFileError: the file is damaged or not a model file.
        StorageError: a file cannot be read or written.
    """
    with _tensorflow(custom_objects):
        from edgefl_converters import exporting

        return exporting.export(
            file, weights, out, base=base, adapters=adapters, quantize=quantize, calibration=calibration
        )


def load_model(source: Any, *, custom_objects: CustomObjects = None) -> keras.Model:
    """Loads a Keras model as `convert` does, with the LoRA adapters that a file keeps (``keras`` alone zeroes them).

    Args:
        source: as `convert` takes a model.
        custom_objects: as `convert` takes them.

    Raises:
        ModelError: it is not a Keras model, or Keras cannot load it.
        StorageError: the file cannot be read.
        MissingDependencyError: TensorFlow is not installed.
    """
    with _tensorflow(custom_objects):
        from edgefl_converters.models import loading

        return loading.load(source)


def compile_model(model: keras.Model, *, loss: Any = None, optimizer: Any = None, metrics: Any = None) -> keras.Model:
    """Compiles a model, in place, with what is given; of what it was compiled with before, the rest stays.

    Args:
        model: a Keras model.
        loss: as `keras.Model.compile` takes it.
        optimizer: as `keras.Model.compile` takes it.
        metrics: as `keras.Model.compile` takes them.

    Raises:
        InvalidSettingError: a name that Keras does not know.
        ModelError: loss or optimizer is missing, or Keras cannot compile the model so.
        MissingDependencyError: TensorFlow is not installed.
    """
    with _tensorflow():
        from edgefl_converters.models import loading

        return loading.compile_model(loading.load(model), loss=loss, optimizer=optimizer, metrics=metrics)


def fingerprint(model: keras.Model) -> str:
    """Hashes all that a compiled model is: layers, how it is compiled, weights. Names that Keras gave do not count.

    Args:
        model: a built and compiled Keras model.

    Raises:
        ModelError: it is none.
        MissingDependencyError: TensorFlow is not installed.
    """
    with _tensorflow():
        from edgefl_converters.models import configuration, loading

        return configuration.fingerprint(loading.compile_model(loading.load(model)))


def names_of_weights(model: keras.Model) -> list[str]:
    """The names that a model file has for a model's weights, in the order of Keras's ``get_weights``.

    Args:
        model: a built Keras model.

    Raises:
        ModelError: it is none.
        MissingDependencyError: TensorFlow is not installed.
    """
    with _tensorflow():
        from edgefl_converters.models import loading, named_model

        named = named_model.NamedModel(loading.load(model))
        return [named.name_of(variable) for variable in named.model.weights]


@contextlib.contextmanager
def _tensorflow(custom_objects: CustomObjects = None) -> Iterator[None]:
    """Lets TensorFlow work in silence on models with a user's own objects; importing it is part of the work."""
    require_tensorflow()
    with quiet_functions(), known_objects(custom_objects):
        yield


def require_tensorflow() -> None:
    if importlib.util.find_spec("tensorflow") is None:
        raise MissingDependencyError(
            "This needs the package 'tensorflow', which is not installed here.",
            hint=f"Install it with: {install_line('convert')}",
        )
