"""The order in which Keras 2 wrote weights, and giving a rebuilt model those of a file.

The order is that of ``trainable_weights + non_trainable_weights`` in ``engine/base_layer.py`` and
``engine/training.py`` of github.com/keras-team/tf-keras.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from edgefl.errors import ModelError
from edgefl_converters.models.sources.keras_2.cudnn_weights import all_plain
from edgefl_converters.models.sources.keras_2.rebuilding import Rebuilt
from edgefl_converters.models.sources.keras_2.spelling import plain_name

__all__ = ["Saved", "assign", "finish", "give", "unfit", "weights_of"]

Saved = tuple[str, Callable[[], NDArray[Any]]]
"""A saved weight: its name in the file, and what reads it."""
_RENAMED = {"depthwise_kernel": "kernel"}
_NOT_NEEDED = ("StateVar", "count")
"""Variables that only adapt needs, which not every Keras has, and the state of random numbers."""
_RESAVE = "Save the model again with the code that made it, as model.save('model.h5') with Keras 2."


def weights_of(rebuilt: Rebuilt, layer: Any) -> list[tuple[str, Any]]:
    """The weights of a layer and of those in it in the order of Keras 2, each with the name of its layer."""
    return _once([*_trainable(rebuilt, layer), *_not_trainable(rebuilt, layer)])


def give(rebuilt: Rebuilt, layer: Any, saved: Sequence[Saved], place: str) -> None:
    """Gives a layer its weights; by their order where names and shapes agree with it, else by names.

    Args:
        rebuilt: the model.
        layer: of it.
        saved: the layer's, in the order of Keras 2.
        place: of the weights, for errors.

    Raises:
        ModelError: they do not fit, or not for certain.
    """
    saved = [each for each in saved if _last(each[0]) not in _NOT_NEEDED]
    wanted = [each for each in weights_of(rebuilt, layer) if each[1].name not in _NOT_NEEDED]
    values = [(name, np.asarray(read())) for name, read in saved]
    plain = all_plain(values)
    if len(plain) == len(wanted) and all(map(_fits, plain, wanted)) and not all(map(_fits, values, wanted)):
        values = plain
    chosen: list[int | None] = list(range(len(values)))
    if len(values) != len(wanted) or not all(map(_fits, values, wanted)) or not _agree(values, wanted):
        chosen = [_choose(variable, values) for _, variable in wanted]
        if len(values) != len(wanted) or None in chosen or len(set(chosen)) < len(chosen):
            raise unfit(layer, place, [(name, value.shape) for name, value in values], [each for _, each in wanted])
    for (_, variable), index in zip(wanted, chosen, strict=True):
        assign(variable, values[index or 0][1])


def unfit(layer: Any, place: str, saved: list[tuple[str, tuple[int, ...]]], wanted: Iterable[Any]) -> ModelError:
    """The error to raise where a layer's weights are not those of a file.

    Args:
        layer: whose weights.
        place: of those in the file.
        saved: name and shape of each there.
        wanted: the layer's variables.
    """
    return ModelError(
        f"The weights of layer {layer.name!r} in {place} are not those that Keras {keras.__version__} has: "
        f"{_shown(saved)}; expected {_shown([(each.path, tuple(each.shape)) for each in wanted])}.",
        hint=_RESAVE,
    )


def finish(rebuilt: Rebuilt) -> None:
    """Lets layers that compute with constants made from their weights make them anew."""
    for layer in rebuilt.model._flatten_layers():
        if isinstance(layer, keras.layers.Normalization) and layer.built:
            layer.finalize_state()


def assign(variable: Any, value: NDArray[Any]) -> None:
    """Gives a variable its value, in its own type."""
    variable.assign(np.asarray(value, dtype=keras.backend.standardize_dtype(variable.dtype)))


def _trainable(rebuilt: Rebuilt, layer: Any) -> list[tuple[str, Any]]:
    if not layer.trainable:
        return []
    own = [(layer.name, each) for each in layer._trainable_variables]
    inner = [each for _, child in rebuilt.layers_of(layer) for each in _trainable(rebuilt, child)]
    return [*inner, *own] if rebuilt.is_model(layer) else [*own, *inner]


def _not_trainable(rebuilt: Rebuilt, layer: Any) -> list[tuple[str, Any]]:
    trained = [(layer.name, each) for each in layer._trainable_variables]
    own = [(layer.name, each) for each in layer._non_trainable_variables]
    children = [child for _, child in rebuilt.layers_of(layer)]
    inner = [each for child in children for each in _not_trainable(rebuilt, child)]
    if rebuilt.is_model(layer):
        frozen = [] if layer.trainable else [each for child in children for each in _trainable(rebuilt, child)]
        return [*frozen, *([] if layer.trainable else trained), *inner, *own]
    if layer.trainable:
        return [*own, *inner]
    return [*trained, *own, *(each for child in children for each in weights_of(rebuilt, child))]


def _once(weights: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    seen: set[int] = set()
    return [each for each in weights if not (id(each[1]) in seen or seen.add(id(each[1])))]  # type: ignore[func-returns-value]


def _fits(saved: tuple[str, NDArray[Any]], wanted: tuple[str, Any]) -> bool:
    return saved[1].shape == tuple(wanted[1].shape)


def _agree(values: list[tuple[str, NDArray[Any]]], wanted: list[tuple[str, Any]]) -> bool:
    """Tells whether names in the file, as far as they are Keras's own, say that the order is right."""
    own = [_last(variable.name) for _, variable in wanted]
    names = [_last(name) for name, _ in values]
    if sorted(own) == sorted(names) and own != names:
        return False
    owners = {plain_name(owner) for owner, _ in wanted}
    for (name, _), (owner, _) in zip(values, wanted, strict=True):
        said = _said(name, owners)
        if said and plain_name(owner) not in said:
            return False
    return True


def _said(name: str, owners: Collection[str]) -> set[str]:
    """The layers that the name of a weight may mean: Keras 2 has slashes between them and within their names."""
    parts = name.split("/")[:-1]
    for length in range(len(parts), 0, -1):
        runs = {"_".join(parts[start : start + length]) for start in range(len(parts) - length + 1)}
        if found := runs.intersection(owners):
            return found
    return set()


def _choose(variable: Any, values: list[tuple[str, NDArray[Any]]]) -> int | None:
    """Tells which of the saved weights a variable is, by names and shape; None where that is not certain."""
    fitting = {
        index: name.split("/")[:-1]
        for index, (name, value) in enumerate(values)
        if value.shape == tuple(variable.shape) and _last(name) == _last(variable.name)
    }
    # First by the names as they are; Keras numbers the names that it gives, in each process anew.
    plainer: tuple[Callable[[str], str], ...] = (lambda part: part, lambda part: re.sub(r"_\d+$", "", part))
    for plain in plainer:
        parts = [plain(part) for part in variable.path.split("/")[:-1]]
        for length in range(len(parts), -1, -1):
            end = parts[len(parts) - length :]
            found = [
                index
                for index, name in fitting.items()
                if [plain(part) for part in name][-length or len(name) :] == end
            ]
            if len(found) == 1:
                return found[0]
    return None


def _last(name: str) -> str:
    last = name.rpartition("/")[2].partition(":")[0]
    return _RENAMED.get(last, last)


def _shown(weights: list[tuple[str, tuple[int, ...]]]) -> str:
    most = 6
    shown = [f"{name} {list(shape)}" for name, shape in weights[:most]]
    more = f" and {len(weights) - most} more" if len(weights) > most else ""
    return ", ".join(shown) + more if shown else "none"
