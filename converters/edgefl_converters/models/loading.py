"""Leads from what a user names to a compiled Keras model: a file or folder, ``module:function``, or a model object."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgefl.errors import InvalidSettingError, ModelError, first_line
from edgefl_converters.models.added_losses import adds_losses
from edgefl_converters.models.own_training import brings_loss
from edgefl_converters.models.sources.files import SOURCES, read_model
from edgefl_converters.models.sources.modules import is_reference, model_of
from edgefl_converters.models.sources.nearest_names import nearest, public
from edgefl_converters.settings.input_shapes import InputShape, with_input_shapes

if TYPE_CHECKING:
    import keras

__all__ = ["compile_model", "compiled_with", "load", "load_compiled", "load_source", "shares_layers"]


def load_compiled(
    source: Any, *, loss: Any = None, optimizer: Any = None, metrics: Any = None, input_shape: InputShape | None = None
) -> keras.Model:
    """Loads a model, gives it fixed input shapes and makes sure that it is compiled; see `load`, `compile_model`."""
    model = load(source)
    if input_shape is not None:
        shaped = with_input_shapes(model, input_shape)
        if shaped is not model and model.compiled and model._compile_loss is not None:
            shaped.compile(**compiled_with(model))
        model = shaped
    return compile_model(model, loss=loss, optimizer=optimizer, metrics=metrics)


def shares_layers(model: keras.Model, source: Any) -> bool:
    """Tells whether a model has layers of what a user gave, so that nothing may be added to them."""
    theirs = set(map(id, source._flatten_layers())) if hasattr(source, "_flatten_layers") else set()
    return any(id(each) in theirs for each in model._flatten_layers())


def load(source: Any) -> keras.Model:
    """Finds the Keras model that a source names.

    Args:
        source: path of a ``.keras`` or ``.h5`` file or of a SavedModel folder of a Keras model,
            ``"module:function"``, or a Keras model, which is returned as it is.

    Raises:
        ModelError: it is not a Keras model; says what it is instead where that can be seen.
        StorageError: the file cannot be read.
    """
    import keras

    if isinstance(source, keras.Model):
        return source
    if not isinstance(source, (str, os.PathLike)):
        raise ModelError(
            f"Expected a Keras model, got {type(source).__module__}.{type(source).__name__}.", hint=SOURCES
        )
    path = Path(source)
    if not path.exists() and isinstance(source, str) and is_reference(source):
        return model_of(source)
    return read_model(path)


def load_source(source: Any) -> tuple[keras.Model, bool]:
    """Like `load`, and whether the model's weights are the same every time: a function may draw new ones."""
    return load(source), not (isinstance(source, str) and not Path(source).exists())


def compile_model(model: keras.Model, *, loss: Any = None, optimizer: Any = None, metrics: Any = None) -> keras.Model:
    """Compiles a model with what is given, and keeps what it was compiled with otherwise.

    Args:
        model: compiled in place when anything is given; otherwise it must be compiled.
        loss: name, object or function; for several outputs a list or dictionary, as Keras takes it.
        optimizer: name or object.
        metrics: as Keras takes them.

    Raises:
        InvalidSettingError: a name that Keras does not know; the hint has the nearest one.
        ModelError: the model is not compiled and loss or optimizer is missing.
    """
    if loss is None and optimizer is None and metrics is None:
        _require(model)
        before = compiled_with(model)
        _check_names(before["loss"], None, [before["metrics"], before["weighted_metrics"]])
        return model
    _check_names(loss, optimizer, metrics)
    compiled = bool(model.compiled)
    given: dict[str, Any] = {"loss": loss, "optimizer": optimizer, "metrics": metrics}
    if compiled:
        before = compiled_with(model)
        given = {**before, **{name: value for name, value in given.items() if value is not None}}
    missing = [name for name in ("loss", "optimizer") if given[name] is None]
    if "loss" in missing and (brings_loss(model) or adds_losses(model)):
        missing.remove("loss")
    if missing:
        raise ModelError(
            f"The model is not compiled, and no {' and no '.join(missing)} was given.",
            hint="Give both `loss` and `optimizer`, or compile the model before saving it.",
        )
    try:
        model.compile(**given)
    except Exception as error:
        raise ModelError(f"Keras cannot compile the model so: {first_line(error)}") from error
    return model


def _require(model: keras.Model) -> None:
    if not model.compiled or getattr(model, "optimizer", None) is None:
        raise ModelError(
            "The model is not compiled with a loss and an optimizer.",
            hint="Give `loss` and `optimizer`, or compile the model before saving it.",
        )


def compiled_with(model: keras.Model) -> dict[str, Any]:
    """The arguments of ``compile`` that a model was compiled with."""
    loss, metrics = model._compile_loss, model._compile_metrics
    return {
        "optimizer": model.optimizer,
        "loss": None if loss is None else loss._user_loss,
        "loss_weights": None if loss is None else loss._user_loss_weights,
        "metrics": None if metrics is None else metrics._user_metrics,
        "weighted_metrics": None if metrics is None else metrics._user_weighted_metrics,
    }


def _check_names(loss: Any, optimizer: Any, metrics: Any) -> None:
    """Keras looks names up when it sees data, and has none near those that it does not know."""
    import keras

    _known_names("loss", loss, keras.losses.get, public(keras.losses))
    _known_names("optimizer", optimizer, keras.optimizers.get, [name.lower() for name in public(keras.optimizers)])
    _known_names("metric", metrics, keras.metrics.get, ["accuracy", *public(keras.metrics)])


def _known_names(kind: str, given: Any, get: Any, known: Iterable[str]) -> None:
    for name in _strings(given):
        if kind == "metric" and name in ("accuracy", "acc", "crossentropy", "ce"):
            continue  # Keras chooses the variant by the loss
        try:
            get(name)
        except Exception as error:
            candidates = sorted(set(known))
            near = nearest(name, candidates)
            shown = [each for each in candidates if each[0].islower()] or candidates
            hint = f"Did you mean {near!r}?" if near else f"Keras knows: {', '.join(shown)}."
            raise InvalidSettingError(f"Keras knows no {kind} {name!r}.", hint=hint) from error


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _strings(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _strings(each)
