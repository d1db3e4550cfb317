"""Finds which of the local arrays is which input and target of a model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import DataError, listed
from edgefl.manifest import ModelManifest, Target
from edgefl_device_runtime.training.file_rows import FileRows
from edgefl_device_runtime.training.structures import keys_by_position

__all__ = ["Arrays", "Examples", "arrange"]

Arrays = Mapping[str, NDArray[Any] | FileRows]
"""Arrays by name: ``x``, ``y`` and ``sample_weight``, or the names of the model's inputs and outputs."""


@dataclass(frozen=True)
class Examples:
    """Local data under the model's own names.

    Attributes:
        x: the model's inputs, ``[rows, …]`` each.
        y: the model's targets, ``[rows, …]`` each.
        sample_weight: ``[rows]``, or None.
    """

    x: dict[str, NDArray[Any] | FileRows]
    y: dict[str, NDArray[Any] | FileRows]
    sample_weight: NDArray[Any] | FileRows | None = None

    @property
    def rows(self) -> int:
        """Number of examples."""
        return len(next(iter(self.x.values())))


def arrange(arrays: Arrays, manifest: ModelManifest) -> Examples:
    """Finds a model's inputs and targets among named arrays.

    An input is taken from the array of its name. So is a target, or from the one named like the model output that it
    is for. Where the model has a dict of inputs or outputs, its keys are names too, as in ``fit(y={"kind": …})``. Where
    it has one input, ``x`` is that, and ``y`` the one target. Where there is neither (a CSV file), the remaining
    columns are the input and the last one the target. Other arrays are left alone.

    Args:
        arrays: see `Arrays`.
        manifest: of the model.

    Raises:
        DataError: an array is missing or holds no rows, or they differ in their number of rows.
    """
    weight = arrays.get("sample_weight")
    if weight is not None and "sample_weight" in manifest.inputs:
        weight = None
    targets = {target.name: _target_array(target, arrays, manifest) for target in manifest.targets}
    y = {name: arrays[source] for name, source in targets.items()}
    x = _inputs(arrays, manifest, taken=set(targets.values()), keys=_input_keys(manifest))
    used = {**x, **y} if weight is None else {**x, **y, "sample_weight": weight}
    if single := [name for name, array in used.items() if array.ndim == 0]:
        raise DataError(f"Expected arrays with a row for each example, got a single number as {single[0]!r}.")
    lengths = {name: len(array) for name, array in used.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"Expected arrays with equal numbers of rows, got {lengths}.")
    return Examples(x, y, weight)


def _target_array(target: Target, arrays: Arrays, manifest: ModelManifest) -> str:
    """The name of the array that holds a target."""
    alone = len(manifest.targets) == 1
    key = _output_key(target, manifest)
    names = [target.name, *([] if key is None else [key, f"y_{key}"]), target.output, *(["y"] if alone else [])]
    inputs = {*manifest.inputs, *_input_keys(manifest)}
    found = next((name for name in names if name in arrays and name not in inputs), None)
    if found is None and alone and _is_table(arrays):
        found = [name for name in arrays if name != "sample_weight"][-1]
    if found is None:
        raise _missing(_shown(target, manifest), arrays, manifest)
    return found


def _output_key(target: Target, manifest: ModelManifest) -> str | None:
    keys = keys_by_position(manifest.output_structure)
    return next((keys.get(position) for position, name in enumerate(manifest.outputs) if name == target.output), None)


def _input_keys(manifest: ModelManifest) -> list[str]:
    """The keys of a dict of inputs, in the order of `ModelManifest.inputs`; none where they are nested otherwise."""
    keys = keys_by_position(manifest.input_structure)
    return [keys[position] for position in sorted(keys)] if len(keys) == len(manifest.inputs) else []


def _shown(target: Target, manifest: ModelManifest) -> str:
    """The name by which a user knows a target."""
    if len(manifest.targets) == 1:
        return target.name
    name = _output_key(target, manifest) or target.output
    return target.name if name in {*manifest.inputs, *_input_keys(manifest)} else name


def _inputs(
    arrays: Arrays, manifest: ModelManifest, taken: set[str], keys: Sequence[str]
) -> dict[str, NDArray[Any] | FileRows]:
    if keys and all(key in arrays for key in keys):
        return {name: arrays[key] for name, key in zip(manifest.inputs, keys, strict=True)}
    if all(name in arrays for name in manifest.inputs):
        return {name: arrays[name] for name in manifest.inputs}
    if len(manifest.inputs) == 1:
        (name,) = manifest.inputs
        if "x" in arrays:
            return {name: arrays["x"]}
        if _is_table(arrays):
            return {name: _table(arrays, manifest, taken)}
    wanted = keys or manifest.inputs
    raise _missing(next(name for name in wanted if name not in arrays), arrays, manifest)


def _is_table(arrays: Arrays) -> bool:
    return len(arrays) > 1 and all(array.ndim == 1 for array in arrays.values())


def _table(arrays: Arrays, manifest: ModelManifest, taken: set[str]) -> NDArray[Any]:
    """The columns that are not the target, as rows of the input's shape."""
    spec = next(spec for spec in manifest.signatures["train"].inputs if spec.name == manifest.inputs[0])
    columns = [np.asarray(array) for name, array in arrays.items() if name not in taken | {"sample_weight"}]
    if len(columns) != math.prod(spec.shape[1:]):
        raise DataError(
            f"Input {spec.name!r} expects {math.prod(spec.shape[1:])} numbers a row, the table has {len(columns)} "
            f"columns beside the target."
        )
    table: NDArray[Any] = np.stack(columns, axis=1).astype(spec.dtype)
    return table.reshape(-1, *spec.shape[1:])


def _missing(name: str, arrays: Arrays, manifest: ModelManifest) -> DataError:
    targets = [_shown(target, manifest) for target in manifest.targets]
    hint = "Name the arrays x and y, or like the model's inputs and targets (`edgefl inspect` lists them)."
    if len(manifest.inputs) > 1 or len(targets) > 1:
        inputs = _input_keys(manifest) or manifest.inputs
        hint = f"Give it an array for each of {listed(map(repr, [*inputs, *targets]))}, under these names."
    return DataError(
        f"The model expects an array {name!r}; the data holds {listed(map(repr, arrays))}.",
        hint=hint,
    )
