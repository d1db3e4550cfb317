"""From what a user names to a compiled Keras model: a ``.keras`` file, ``module:function``, or a model object."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import re
import sys
import traceback
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgefl.errors import EdgeflError, InvalidSettingError, ModelError, storage_error
from edgefl_converters.input_shapes import InputShape, with_input_shapes

if TYPE_CHECKING:
    import keras

__all__ = ["compile_model", "compiled_with", "load", "load_compiled", "load_source"]

_SOURCES = "Give a .keras file, module:function that returns a model, or a Keras model object."
_RESAVE = "Load it with the code that made it and save it again with model.save('model.keras')."
_FUNCTION_INSTEAD = "Custom classes need their source: give module:function that builds the model instead of a file."
_MODULE_AND_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


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


def load(source: Any) -> keras.Model:
    """Finds the Keras model that a source names.

    Args:
        source: path of a ``.keras`` file, ``"module:function"``, or a Keras model, which is returned as it is.

    Raises:
        ModelError: it is not a Keras model; says what it is instead where that can be seen.
        StorageError: the file cannot be read.
    """
    import keras

    if isinstance(source, keras.Model):
        return source
    if not isinstance(source, (str, os.PathLike)):
        raise ModelError(
            f"Expected a Keras model, got {type(source).__module__}.{type(source).__name__}.", hint=_SOURCES
        )
    path = Path(source)
    if not path.exists() and isinstance(source, str) and _MODULE_AND_FUNCTION.fullmatch(source):
        return _call(source)
    return _read(path)


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
    import keras

    if loss is None and optimizer is None and metrics is None:
        _require(model)
        return model
    _known_names("loss", loss, keras.losses.get, _public(keras.losses))
    _known_names("optimizer", optimizer, keras.optimizers.get, [name.lower() for name in _public(keras.optimizers)])
    _known_names("metric", metrics, keras.metrics.get, ["accuracy", *_public(keras.metrics)])
    compiled = bool(model.compiled)
    given: dict[str, Any] = {"loss": loss, "optimizer": optimizer, "metrics": metrics}
    if compiled:
        before = compiled_with(model)
        given = {**before, **{name: value for name, value in given.items() if value is not None}}
    missing = [name for name in ("loss", "optimizer") if given[name] is None]
    if missing:
        raise ModelError(
            f"The model is not compiled, and no {' and no '.join(missing)} was given.",
            hint="Give both `loss` and `optimizer` (on the command line --loss and --optimizer), "
            "or compile the model before saving it.",
        )
    try:
        model.compile(**given)
    except Exception as error:
        raise ModelError(f"Keras cannot compile the model so: {_first_line(error)}") from error
    return model


def _require(model: keras.Model) -> None:
    if not model.compiled or getattr(model, "optimizer", None) is None or getattr(model, "_compile_loss", None) is None:
        raise ModelError(
            "The model is not compiled with a loss and an optimizer.",
            hint="Give `loss` and `optimizer` (on the command line --loss and --optimizer), "
            "or compile the model before saving it.",
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


def _known_names(kind: str, given: Any, get: Any, known: Iterable[str]) -> None:
    for name in _strings(given):
        if kind == "metric" and name in ("accuracy", "acc", "crossentropy", "ce"):
            continue  # Keras chooses the variant by the loss
        try:
            get(name)
        except Exception as error:
            candidates = sorted(set(known))
            near = _nearest(name, candidates)
            shown = [each for each in candidates if each[0].islower()] or candidates
            hint = f"Did you mean {near!r}?" if near else f"Keras knows: {', '.join(shown)}."
            raise InvalidSettingError(f"Keras knows no {kind} {name!r}.", hint=hint) from error


def _near_hint(message: str) -> str | None:
    """The nearest name to one that Keras did not know while it built a model."""
    found = re.search(r"(?:Could not interpret|Unknown)\b.*?(?:identifier|instance)?\s*:\s*'?(\w+)'?", message)
    near = _nearest(found[1], _classes()) if found else None
    if near is None:
        found = re.search(r"has no attribute '(\w+)'", message)
        near = _nearest(found[1], _classes(), cutoff=0.75) if found else None
    return f"Did you mean {near!r}?" if near else None


def _classes() -> list[str]:
    import keras

    parts = (keras.layers, keras.losses, keras.optimizers, keras.metrics, keras.activations, keras.initializers)
    return [name for part in parts for name in _public(part)]


def _nearest(name: str, candidates: list[str], cutoff: float = 0.5) -> str | None:
    """The known name most like one that is not, whatever its upper and lower case and underscores."""
    plain = {re.sub(r"[^a-z0-9]", "", candidate.lower()): candidate for candidate in candidates}
    found = difflib.get_close_matches(re.sub(r"[^a-z0-9]", "", name.lower()), plain, n=1, cutoff=cutoff)
    return plain[found[0]] if found else None


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _strings(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _strings(each)


def _public(module: Any) -> list[str]:
    return [
        name
        for name in dir(module)
        if not name.startswith("_")
        and name not in ("get", "serialize", "deserialize", "legacy", "schedules", "Loss", "Metric", "Optimizer")
    ]


def _call(source: str) -> keras.Model:
    import keras

    module_name, function_name = source.split(":")
    with _working_folder_importable():
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise ModelError(
                    f"Importing {module_name} failed: {error}.", hint="Install what it needs, or correct its imports."
                ) from error
            raise ModelError(
                f"There is no Python module {module_name!r} to import.",
                hint=f"Run this in the folder that holds {module_name.partition('.')[0]}.py, or correct the name.",
            ) from error
        except Exception as error:
            raise ModelError(f"Importing {module_name} failed: {_where(error)}") from error
        function = getattr(module, function_name, None)
        if function is None:
            near = difflib.get_close_matches(function_name, [name for name in vars(module) if name[0] != "_"], n=1)
            raise ModelError(
                f"Module {module_name} has no {function_name!r}.",
                hint=f"Did you mean {module_name}:{near[0]}?" if near else _SOURCES,
            )
        if isinstance(function, keras.Model):
            return function
        if not callable(function):
            raise ModelError(f"{source} is not a function but {type(function).__name__}.", hint=_SOURCES)
        try:
            model = function()
        except EdgeflError:
            raise
        except Exception as error:
            hint = "It is called without arguments." if isinstance(error, TypeError) else _near_hint(str(error))
            raise ModelError(f"{source}() failed: {_where(error)}", hint=hint) from error
    if not isinstance(model, keras.Model):
        raise ModelError(f"{source}() returned {type(model).__name__}, expected a Keras model.", hint=_SOURCES)
    return model


@contextlib.contextmanager
def _working_folder_importable() -> Iterator[None]:
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the module may have edited sys.path itself
            sys.path.remove(folder)


def _read(path: Path) -> keras.Model:
    import keras

    if path.is_dir():
        what = "a SavedModel folder" if (path / "saved_model.pb").exists() else "a folder"
        raise ModelError(f"{path} is {what}, expected a .keras file.", hint=_RESAVE)
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except FileNotFoundError as error:
        raise ModelError(f"There is no file {path}.", hint=_SOURCES) from error
    except OSError as error:
        raise storage_error(error, "read", path) from error
    if start == b"\x89HDF\r\n\x1a\n":
        raise ModelError(f"{path} is an HDF5 file of an older Keras, expected a .keras file.", hint=_RESAVE)
    if start[4:8] == b"TFL3":
        raise ModelError(
            f"{path} is a TFLite file already, expected a .keras file.", hint="Convert the Keras model it came from."
        )
    if not zipfile.is_zipfile(path) or "config.json" not in zipfile.ZipFile(path).namelist():
        raise ModelError(f"{path} is not a Keras model file.", hint=_SOURCES)
    if path.suffix != ".keras":
        raise ModelError(f"{path} must have a name that ends in .keras for Keras to load it.", hint="Rename it.")
    try:
        with warnings.catch_warnings():
            # The optimizer's state is not converted: training on devices starts with a fresh one.
            warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
            model = keras.saving.load_model(path)
    except Exception as error:
        message = str(error)
        if "Lambda" in message or "safe_mode" in message:
            raise ModelError(
                f"{path} holds Python code (a Lambda layer), which is not run from a file.",
                hint="Give module:function that builds the model, or replace the Lambda by a layer class.",
            ) from error
        unknown = re.search(r"Could not locate \w+ '(\w+)'", message) or re.search(
            r"Unknown \w[\w ]*: '?(\w+)'?", message
        )
        if unknown:
            near = _nearest(unknown[1], _classes(), cutoff=0.75)
            hint = f"Did you mean {near!r}? {_FUNCTION_INSTEAD}" if near else _FUNCTION_INSTEAD
            raise ModelError(f"{path} uses {unknown[1]}, which Keras does not know.", hint=hint) from error
        raise ModelError(f"Keras cannot load {path}: {_first_line(error)}", hint=_RESAVE) from error
    if not isinstance(model, keras.Model):
        raise ModelError(f"{path} holds {type(model).__name__}, expected a Keras model.", hint=_SOURCES)
    return model


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _where(error: BaseException) -> str:
    """The error with the last line of the user's own code that led to it."""
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg} ({Path(error.filename or '').name}, line {error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {_first_line(error)}{place}"
