"""Reads what Keras's tests of layers would try, by running them with a test that only takes notes."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
import unittest
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np
from keras import layers
from keras.src import testing

from keras_coverage.pairwise.places import learnt, seen
from keras_coverage.pairwise.subjects import Built

__all__ = ["LayerCase", "layer_cases", "require_checkout"]

_CALL = "run_layer_test"


@dataclass(frozen=True)
class LayerCase:
    """A layer as a test of Keras calls it.

    Attributes:
        key: the file, the test and which of its calls it is.
        api: the class.
        settings: what it is made with.
        inputs: shapes without the batch, and types, as deeply nested as the layer wants them.
        called: further arguments of the call.
        custom_objects: the test's own classes and functions, by name.
    """

    key: str
    api: Any
    settings: dict[str, Any]
    inputs: Any
    called: dict[str, Any] = field(default_factory=dict)
    custom_objects: dict[str, Any] = field(default_factory=dict)
    alone: bool = False

    def make(self) -> Built:
        """The layer behind one that learns, where its inputs are numbers and not tokens."""
        given, features = [], []
        for shape, dtype in _leaves(self.inputs):
            given.append(keras.Input(shape, dtype=dtype))
            dense = dtype.startswith("float") and len(shape) > 0
            features.append(learnt(given[-1], "sigmoid") if dense else given[-1])
        packed = keras.tree.pack_sequence_as(_marks(self.inputs), features)
        with keras.saving.custom_object_scope(self.custom_objects):
            layer = self.api.from_config(self.api(**self.settings).get_config())
        outputs = layer(**packed, **self.called) if isinstance(packed, dict) else layer(packed, **self.called)
        return Built(given, seen(outputs))


@dataclass(frozen=True)
class _Leaf:
    shape: tuple[int, ...]
    dtype: str


def _leaves(inputs: Any) -> Iterator[tuple[tuple[int, ...], str]]:
    return ((leaf.shape, leaf.dtype) for leaf in keras.tree.flatten(inputs))


def _marks(inputs: Any) -> Any:
    return keras.tree.map_structure(lambda leaf: 0, inputs)


def require_checkout(path: Path) -> None:
    """Checks that a folder is a checkout of Keras at the installed version.

    Raises:
        ValueError: it is none, or of another version.
    """
    source = path / "keras" / "src" / "version.py"
    if not (source.is_file() and (path / "conftest.py").is_file()):
        raise ValueError(
            f"{path} is no checkout of Keras: it has no keras/src/version.py, or no conftest.py beside it."
        )
    found = re.search(r'__version__ = "(.+)"', source.read_text())
    if found is None or found[1] != keras.__version__:
        raise ValueError(
            f"{path} is a checkout of Keras {found[1] if found else 'of no known version'}, but {keras.__version__} "
            f"is installed: git checkout v{keras.__version__}."
        )


def layer_cases(checkout: Path) -> Iterator[LayerCase]:
    """The cases of all tests of layers, in the order of their files.

    Args:
        checkout: of Keras, at the version that is installed.
    """
    with mock.patch.dict(sys.modules, {"conftest": _module(checkout / "conftest.py")}):
        for path in sorted((checkout / "keras" / "src" / "layers").rglob("*_test.py")):
            if (tries := _calling(path)) is not None:
                yield from _of_file(path, tries, str(path.relative_to(checkout)))


def _calling(path: Path) -> Callable[[str], bool] | None:
    """Tells of a method by its name whether it tries a layer; None if none of the file does.

    A test with parameters is many methods, whose names begin with that of its function.
    """
    functions = [each for each in ast.walk(ast.parse(path.read_text())) if isinstance(each, ast.FunctionDef)]
    tries = {each.name: _CALL in ast.unparse(each) for each in functions if each.name.startswith("test")}

    def does(method: str) -> bool:
        return tries[max((name for name in tries if method.startswith(name)), key=len)]

    return does if any(tries.values()) else None


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"keras_own_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _of_file(path: Path, tries: Callable[[str], bool], where: str) -> Iterator[LayerCase]:
    try:
        module = _module(path)
    except ModuleNotFoundError:  # data layers, which no model holds, are tested with packages of data loading
        return
    classes = [
        each
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, testing.TestCase) and each is not testing.TestCase
    ]
    for kind in classes:
        for method in unittest.TestLoader().getTestCaseNames(kind):
            if tries(method):
                yield from _of_test(kind(method), f"{where}::{kind.__name__}::{method}")


def _of_test(test: unittest.TestCase, name: str) -> Iterator[LayerCase]:
    noted: list[dict[str, Any]] = []

    def note(self: Any, layer_cls: Any, init_kwargs: Any = None, *shape_and_type: Any, **details: Any) -> None:
        details.update(zip(("input_shape", "input_dtype"), shape_and_type))
        noted.append({"layer_cls": layer_cls, "init_kwargs": init_kwargs or {}, **details})

    with mock.patch.object(testing.TestCase, _CALL, note):
        test.run(unittest.TestResult())
    for index, details in enumerate(noted):
        inputs = _inputs(details)
        if inputs is not None:
            settings, called = details["init_kwargs"], details.get("call_kwargs") or {}
            own = {**_classes(settings), **(details.get("custom_objects") or {})}
            yield LayerCase(f"{name} {index}", details["layer_cls"], settings, inputs, called, own)


def _classes(settings: dict[str, Any]) -> dict[str, Any]:
    """Those of layers that a layer is given, such as cells: some are the test's own."""
    given = keras.tree.flatten(list(settings.values()))
    return {type(each).__name__: type(each) for each in given if isinstance(each, layers.Layer)}


def _inputs(details: dict[str, Any]) -> Any:
    """Shapes and types of rows; None where a test trains nothing, or feeds the layer what is no plain tensor."""
    if not details.get("run_training_check", True):
        return None
    if details.get("input_sparse") or details.get("input_ragged"):
        return None
    if (data := details.get("input_data")) is not None:
        return keras.tree.map_structure(_leaf_of_array, data)
    shapes = details.get("input_shape")
    if shapes is None:
        return None
    types = details.get("input_dtype") or "float32"
    if isinstance(shapes, dict):
        own = types if isinstance(types, dict) else dict.fromkeys(shapes, types)
        return {name.removesuffix("_shape"): _Leaf(tuple(shape[1:]), own[name]) for name, shape in shapes.items()}
    if isinstance(shapes[0], int) or shapes[0] is None:
        return _Leaf(tuple(shapes[1:]), types)
    own = types if isinstance(types, (list, tuple)) else [types] * len(shapes)
    return [_Leaf(tuple(shape[1:]), dtype) for shape, dtype in zip(shapes, own)]


def _leaf_of_array(array: Any) -> _Leaf:
    tensor = np.asarray(array)
    return _Leaf(tuple(tensor.shape[1:]), "float32" if tensor.dtype == np.float64 else str(tensor.dtype))
