"""Turns Keras models into TFLite files that train, checks them, and turns trained weights back into Keras models.

Needs the extra [convert]. Importing this package imports no TensorFlow; calling its functions does.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgefl.errors import MissingDependencyError
from edgefl.parts import install_line
from edgefl_converters.fine_tuning import FineTuning
from edgefl_converters.input_shapes import InputShape
from edgefl_converters.options import Options
from edgefl_converters.results import ConversionResult

if TYPE_CHECKING:
    from edgefl_converters.verification.report import VerificationReport

__all__ = ["ConversionResult", "FineTuning", "convert", "explain", "export", "verify"]


def convert(
    model: Any,
    out: str | os.PathLike[str],
    *,
    loss: Any = None,
    optimizer: Any = None,
    metrics: Any = None,
    batch_size: int = 32,
    input_shape: InputShape | None = None,
    fine_tuning: FineTuning | None = None,
    local: str | Sequence[str] = (),
    algorithms: str | Sequence[str] = (),
    verify: bool = True,
    on_progress: Callable[[str], None] | None = None,
    on_layers: Callable[[dict[str, Any]], None] | None = None,
) -> ConversionResult:
    """Converts a Keras model to a ``.tflite`` file that trains with builtin ops only.

    The model must be compiled, or `loss` and `optimizer` must be given; then it is compiled with them, in place.

    Args:
        model: a Keras model, the path of a ``.keras`` file, or ``"module:function"`` that returns a model.
        out: the file to write; ``<out>.report.json`` is written beside it. Nothing is written on failure.
        loss: as `keras.Model.compile` takes it.
        optimizer: as `keras.Model.compile` takes it.
        metrics: as `keras.Model.compile` takes them; averages only.
        batch_size: rows of every batch; fixed in the file.
        input_shape: for models with unknown dimensions, the shape without the batch: ``(100, 6)``, or a dictionary by
            input name. The model is made anew with it and keeps its weights.
        fine_tuning: what is trained; everything that the model itself trains if not given.
        local: patterns of parameters that never leave a device, as in `FineTuning`: personal layers (Arivazhagan et al.
            2019, FedPer), or the normalisation of each device's own data (Li et al. 2021, FedBN).
        algorithms: federated algorithms that need more than a delta: ``fedprox``, ``scaffold``, ``feddyn``, ``fedsgd``.
            Each adds inputs or signatures to the file; without them it has none.
        verify: train the file on every installed runtime beside Keras, and refuse it where they differ.
        on_progress: called with one line at each stage.
        on_layers: called with what became of each layer (as in the report), on failure with those until it failed.

    Raises:
        MissingDependencyError: TensorFlow is not installed.
        ModelError: not a Keras model, not compiled, or its output does not fit the loss.
        UnsupportedModelError: a layer or op cannot be converted; the message names it.
        VerificationError: the file does not compute what Keras computes.
        InvalidSettingError: the batch size, a name that Keras does not know, or a pattern that matches nothing.
        StorageError: the file cannot be written.
    """
    require_tensorflow()
    from edgefl_converters import converting

    return converting.convert(
        model,
        out,
        loss=loss,
        optimizer=optimizer,
        metrics=metrics,
        batch_size=batch_size,
        input_shape=input_shape,
        options=Options(fine_tuning or FineTuning(), local, algorithms),
        verify=verify,
        on_progress=on_progress,
        on_layers=on_layers,
    )


def explain(
    model: Any,
    *,
    loss: Any = None,
    optimizer: Any = None,
    metrics: Any = None,
    batch_size: int = 32,
    input_shape: InputShape | None = None,
    fine_tuning: FineTuning | None = None,
    local: str | Sequence[str] = (),
    algorithms: str | Sequence[str] = (),
    on_layers: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Says what each layer of a model would be lowered to; writes and verifies nothing.

    Args:
        model: as `convert` takes it, like all other arguments.
        loss: as `convert` takes it.
        optimizer: as `convert` takes it.
        metrics: as `convert` takes them.
        batch_size: rows of every batch.
        input_shape: for models with unknown dimensions.
        fine_tuning: as `convert` takes it.
        local: as `convert` takes it.
        algorithms: as `convert` takes them.
        on_layers: called with the result, on failure with the layers until it failed.

    Returns:
        For each layer (and the loss, the optimizer, the metrics): counts of TensorFlow ops ``kept`` and ``lowered``,
        of ``builtin`` TFLite ops, its ``parameters``, and ``training`` (``trained`` or ``frozen``).

    Raises:
        EdgeflError: whatever `convert` raises before verification.
    """
    require_tensorflow()
    from edgefl_converters import converting

    return converting.explain(
        model,
        loss=loss,
        optimizer=optimizer,
        metrics=metrics,
        batch_size=batch_size,
        input_shape=input_shape,
        options=Options(fine_tuning or FineTuning(), local, algorithms),
        on_layers=on_layers,
    )


def verify(file: str | os.PathLike[str], against: Any) -> VerificationReport:
    """Trains a model file on every installed runtime beside the Keras model that it was made from.

    Args:
        file: the model file.
        against: a Keras model, the path of a ``.keras`` file, or ``"module:function"``. The initial weights of the
            first two must be those of the file; a function may draw new ones.

    Returns:
        Every figure that was compared.

    Raises:
        VerificationError: the file does not compute what the model computes, or was not made from it.
        ModelFileError: the file is damaged or not a model file.
        ModelError: ``against`` is not a Keras model.
        MissingDependencyError: TensorFlow or every runtime is missing.
    """
    require_tensorflow()
    from edgefl_converters import comparing

    return comparing.verify(file, against)


def export(
    file: str | os.PathLike[str],
    weights: Any,
    out: str | os.PathLike[str],
    *,
    base: Any = None,
) -> Path:
    """Writes trained weights as a Keras model, or as a plain TFLite model for inference.

    Args:
        file: the model file that was trained.
        weights: an ``.npz`` of named parameters, a mapping of them, a flat vector of the layout, or None for the
            weights that the file holds.
        out: ends in ``.keras``, or in ``.tflite`` for inference in float32 with any number of rows.
        base: the Keras model that the file was made from, as `convert` takes it; needed where the file does not hold
            the whole model: for frozen variables and for classes of your own.

    Returns:
        The path that was written.

    Raises:
        DataError: the weights belong to another layout.
        UnsupportedModelError: the model cannot be rebuilt without `base`.
        ModelFileError: the file is damaged or not a model file.
        StorageError: a file cannot be read or written.
    """
    require_tensorflow()
    from edgefl_converters import exporting

    return exporting.export(file, weights, out, base=base)


def require_tensorflow() -> None:
    if importlib.util.find_spec("tensorflow") is None:
        raise MissingDependencyError(
            "This needs the package 'tensorflow', which is not installed here.",
            hint=f"Install it with: {install_line('convert')}",
        )
