"""Makes a model file of what people call their model: a ``.tflite`` as it is, everything else is converted on the way.

A conversion is remembered by the model's content. A model in a file or a function is converted in a process of its
own, so that this one never imports TensorFlow; a Keras model that is here already is converted here.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgefl import errors
from edgefl.algorithms import ALGORITHMS
from edgefl.atomic import write_bytes
from edgefl.child_processes import ChildFailedError, run_child
from edgefl.errors import EdgeflError, InvalidSettingError, RuntimeFailure, StorageError, storage_error
from edgefl.hashing import canonical_json, sha256
from edgefl.parts import FACADE, load
from edgefl.version import __version__

__all__ = ["Wanted", "model_file"]

_LONGEST = 3600.0
"""Seconds that a conversion may take."""
_BATCH = 32


@dataclass(frozen=True)
class Wanted:
    """The purpose for which a model file is made, where it has to be made.

    Attributes:
        algorithm: a name of `edgefl.algorithms`, or of a strategy that needs none.
        batch_size: rows of a step; 0: 32.
    """

    algorithm: str = ""
    batch_size: int = 0

    def options(self) -> dict[str, Any]:
        """As `edgefl.convert` takes it."""
        algorithms = (self.algorithm,) if self.algorithm in ALGORITHMS else ()
        return {"algorithms": algorithms, "batch_size": self.batch_size or _BATCH}


def model_file(model: Any, wanted: Wanted, tell: Callable[[str], None] = lambda line: None) -> bytes:
    """Makes, or finds, the model file.

    Args:
        model: the path of a ``.tflite``, its bytes, or whatever `edgefl.convert` takes.
        wanted: what it is for.
        tell: called with one line when something takes long.

    Raises:
        StorageError: it cannot be read.
        EdgeflError: what `edgefl.convert` raises.
    """
    if isinstance(model, bytes):
        return model
    if not isinstance(model, (str, os.PathLike)):
        return _converted(model, wanted, tell)
    path = Path(model)
    if path.suffix == ".tflite":
        return _read(path)
    if ":" not in str(model):
        _check_path(path)
    key = ""
    if path.is_file():
        key = _key(wanted, sha256(_read(path)))
        if (found := _cache() / f"{key}.tflite").exists():
            return _read(found)
    tell(
        f"Converting {model}; the next time it is there already."
        if key
        else f"Making {model}; it is converted unless it was before."
    )
    script = Path(__file__).with_name("converting_child.py")
    job = {"model": str(model), "algorithm": wanted.algorithm, "batch_size": wanted.batch_size, "path": sys.path}
    try:
        answer = json.loads(run_child(script, seconds=_LONGEST, job=job).splitlines()[-1])
    except ChildFailedError as error:
        raise RuntimeFailure(f"The conversion of {model} failed: {error}.") from error
    if "error" in answer:
        raise _error(answer)
    data = _read(Path(answer["path"]))
    if key:
        write_bytes(_cache() / f"{key}.tflite", data)
    return data


def _check_path(path: Path) -> None:
    """Makes sure that what is called like no module can be a model: a file, or a SavedModel folder.

    Raises:
        InvalidSettingError: it cannot.
    """
    expected = f"Expected a .tflite, a .keras file or module:function as the model, got {str(path)!r}"
    if not path.exists():
        module = str(path).removesuffix(".py").replace("/", ".")
        named = all(part.isidentifier() for part in module.split("."))
        hint = f"Of a module, name the function that makes the model: {module}:build." if named else None
        raise InvalidSettingError(f"{expected}: no such file.", hint=hint)
    if path.suffix == ".py":
        hint = f"Name the function in it that makes the model: {path.stem}:build."
        raise InvalidSettingError(f"{expected}: a file of Python.", hint=hint)
    if (path / "settings.json").is_file() and (path / "model.tflite").is_file():
        raise InvalidSettingError(f"{expected}: the folder of a simulation.", hint=f"Give its {path / 'model.tflite'}.")


def converted_in_cache(model: Any, wanted: Wanted, tell: Callable[[str], None]) -> Path:
    """Converts a model unless one of the same content was converted before; needs TensorFlow.

    Args:
        model: as `edgefl.convert` takes it.
        wanted: what it is for.
        tell: called with one line when something takes long.

    Returns:
        The model file.
    """
    converters = load(FACADE["convert"])
    loaded = converters.load_model(model)
    out = _cache() / f"{_key(wanted, converters.fingerprint(loaded))}.tflite"
    if not out.exists():
        tell("Converting the model; the next time it is there already.")
        out.parent.mkdir(parents=True, exist_ok=True)
        converters.convert(loaded, out, **wanted.options(), on_progress=lambda line: None)
    return out


def _converted(model: Any, wanted: Wanted, tell: Callable[[str], None]) -> bytes:
    return _read(converted_in_cache(model, wanted, tell))


def _key(wanted: Wanted, content: str) -> str:
    document = {"edgefl": __version__, "content": content, **wanted.options()}
    return sha256(canonical_json({**document, "algorithms": list(document["algorithms"])}))


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base) / "edgefl" / "models"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, "make the folder", folder) from error
    return folder


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise storage_error(error, "read", path) from error


def _error(answer: dict[str, str]) -> EdgeflError:
    """The error that ended a conversion in its process."""
    kind = getattr(errors, answer["error"], StorageError)
    error: EdgeflError = kind(answer["message"], hint=answer["hint"] or None)
    return error
