"""Python modules of the user's: functions that build models, and classes that files refer to. Both run code."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from edgefl.errors import EdgeflError, InvalidSettingError, ModelError, first_line
from edgefl_converters.models.sources.nearest_names import near_hint

if TYPE_CHECKING:
    import keras

__all__ = ["CustomObjects", "attribute", "call", "is_reference", "known_objects", "model_of"]

CustomObjects = Mapping[str, Any] | str | Sequence[str] | None
"""Objects by the name that files call them by, or names of modules that hold them."""

_MODULE_AND_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_SOURCES = "Give a Keras model, a file or folder that holds one, or module:function that returns one."


def is_reference(source: str) -> bool:
    """True for ``module:function``."""
    return _MODULE_AND_FUNCTION.fullmatch(source) is not None


def model_of(reference: str) -> keras.Model:
    """The model that ``module:function`` returns, or that a variable of a module is.

    Raises:
        ModelError: there is no such module or function, it fails, or returns something else.
    """
    import keras

    with _working_folder_importable():
        found = attribute(reference)
        if isinstance(found, keras.Model):
            return found
        model = call(reference, found)
    if not isinstance(model, keras.Model):
        raise ModelError(f"{reference}() returned {type(model).__name__}, expected a Keras model.", hint=_SOURCES)
    return model


def attribute(reference: str) -> Any:
    """Returns what ``module:name`` names; modules are looked for in the current folder too.

    Raises:
        ModelError: there is no such module or name, or importing the module fails.
    """
    module_name, name = reference.split(":")
    module = _import(module_name)
    try:
        return getattr(module, name)
    except AttributeError as error:
        names = [each for each, value in vars(module).items() if each[0] != "_" and not inspect.ismodule(value)]
        near = difflib.get_close_matches(name, names, n=1)
        raise ModelError(
            f"Module {module_name} has no {name!r}.",
            hint=f"Did you mean {module_name}:{near[0]}?" if near else _SOURCES,
        ) from error


def call(reference: str, function: Any) -> Any:
    """Calls a function of the user's without arguments.

    Raises:
        ModelError: it is not a function, or fails; says where.
    """
    if not callable(function):
        raise ModelError(f"{reference} is not a function but {type(function).__name__}.", hint=_SOURCES)
    with _working_folder_importable():
        try:
            return function()
        except EdgeflError:
            raise
        except Exception as error:
            hint = "It is called without arguments." if isinstance(error, TypeError) else near_hint(error)
            raise ModelError(f"{reference}() failed: {_where(error)}", hint=hint) from error


@contextlib.contextmanager
def known_objects(
    custom_objects: CustomObjects = None, on_module: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Makes classes and functions of the user's known to Keras for as long as it is entered.

    Args:
        custom_objects: by name, or modules to import: their code runs. What a module registers with Keras is known
            from then on; so is what it defines or imports: functions, and subclasses of Keras's own classes.
        on_module: called with the name of each module before its code runs.

    Raises:
        ModelError: a module cannot be imported.
        InvalidSettingError: neither a mapping nor names of modules.
    """
    if custom_objects is None:
        yield
        return
    import keras

    objects: dict[str, Any] = {}
    if isinstance(custom_objects, Mapping):
        objects.update(custom_objects)
    else:
        for name in [custom_objects] if isinstance(custom_objects, str) else custom_objects:
            if not isinstance(name, str) or not _MODULE.fullmatch(name):
                raise InvalidSettingError(
                    f"Expected the name of a Python module with custom objects, got {name!r}.",
                    hint="Give my_layers for the file my_layers.py, or in Python a dictionary of objects by name.",
                )
            if on_module is not None:
                on_module(name)
            objects.update(_objects_of(_import(name)))
    with keras.saving.custom_object_scope(objects):
        yield


def _objects_of(module: ModuleType) -> dict[str, Any]:
    import keras

    bases = (
        keras.layers.Layer,
        keras.losses.Loss,
        keras.metrics.Metric,
        keras.optimizers.Optimizer,
        keras.optimizers.schedules.LearningRateSchedule,
        keras.regularizers.Regularizer,
        keras.initializers.Initializer,
        keras.constraints.Constraint,
    )
    return {
        name: each
        for name, each in vars(module).items()
        if (inspect.isfunction(each) or (isinstance(each, type) and issubclass(each, bases)))
        # Keras's own are known already, and must stay its own.
        and not (each.__module__ or "").startswith(("keras.", "tensorflow."))
    }


def _import(name: str) -> ModuleType:
    with _working_folder_importable():
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise ModelError(
                    f"Importing {name} failed: {error}.", hint="Install what it needs, or correct its imports."
                ) from error
            first, package, _ = name.partition(".")
            here = [each.stem for each in Path.cwd().iterdir() if each.suffix == ".py" or (package and each.is_dir())]
            near = difflib.get_close_matches(first, [each for each in here if each != first], n=1)
            what = f"the package {first}" if package else f"{first}.py"
            hint = f"Run this in the folder that holds {what}, or correct the name."
            if name.endswith(".py"):
                hint = f"A module is called like its file without .py: {name[:-3].replace('/', '.')}."
            elif near:
                hint = f"Did you mean {near[0]!r}?"
            raise ModelError(f"There is no Python module {name!r} to import.", hint=hint) from error
        except Exception as error:
            raise ModelError(f"Importing {name} failed: {_where(error)}") from error


@contextlib.contextmanager
def _working_folder_importable() -> Iterator[None]:
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the module may have edited sys.path itself
            sys.path.remove(folder)


def _where(error: BaseException) -> str:
    """The error with the last line of the user's own code that led to it."""
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg} ({Path(error.filename or '').name}, line {error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {first_line(error)}{place}"
