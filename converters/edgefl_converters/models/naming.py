"""Names that do not depend on what else a process has built: Keras numbers its automatic names per process."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["PathNames", "signature_keys", "slot_name", "snake_case", "unique"]

# Names that a TFLite signature runner could not take as a keyword argument.
_RESERVED = frozenset(keyword.kwlist) | {"self", "args", "kwargs"}

_UNNAMED = ("variable", "seed_generator")


def unique(names: Iterable[str]) -> list[str]:
    """Numbers repeated names: ``a, a, b`` become ``a, a_1, b``; the order stays."""
    taken: set[str] = set()
    result = []
    for name in names:
        candidate, count = name, 0
        while candidate in taken:
            count += 1
            candidate = f"{name}_{count}"
        taken.add(candidate)
        result.append(candidate)
    return result


def signature_keys(names: Iterable[str]) -> list[str]:
    """Turns names into unique keys that every TFLite runtime takes as keyword arguments, and TensorFlow as names."""
    keys = []
    for name in names:
        key = re.sub(r"\W", "_", name, flags=re.ASCII) or "_"
        if not key[0].isalpha() or key in _RESERVED:
            key = f"t_{key}"
        keys.append(key)
    return unique(keys)


class PathNames:
    """Renames the layers of one model as if nothing had been built before it in this process.

    Keras names a layer that the user did not name ``dense_7`` when it is the eighth Dense layer of the process. Here it
    becomes ``dense``, ``dense_1``, … by its place among the automatically named Dense layers of its parent in this
    model. Names that the user gave stay. Variables are named by the layers that hold them: Keras's own paths depend on
    where a layer was when it was built, and are others once a model was saved and loaded.

    Args:
        model: a built Keras model.
    """

    def __init__(self, model: Any) -> None:
        self._model_name: str = model.name
        self._automatic: dict[str, str] = {}
        for layer in _layers(model):
            base = snake_case(type(layer).__name__)
            # A Bidirectional puts "forward_" and "backward_" before the names of its two copies.
            found = re.fullmatch(rf"((?:forward_|backward_)?{re.escape(base)})(?:_\d+)?", layer.name)
            if found:
                self._automatic[layer.name] = found[1]
        self._renamed: dict[tuple[str, ...], str] = {}
        self._siblings: dict[tuple[tuple[str, ...], str], int] = {}
        # Numbers are given in order of first sight: layers in the model's order, whatever is asked for first later.
        for layer in model.layers:
            self(layer.name)
        self._owned: dict[int, tuple[str, ...]] = {}
        self._own(model, ())
        for variable in model.weights:
            self.of(variable)

    def __call__(self, path: str) -> str:
        """The stable form of a Keras path or of a single layer name."""
        parts = tuple(path.split("/"))
        if len(parts) > 1 and parts[0] == self._model_name:
            parts = parts[1:]
        return self._join(parts)

    def of(self, variable: Any) -> str:
        """The stable name of a variable of the model."""
        parts = self._owned.get(id(variable))
        return self(variable.path) if parts is None else self._join(parts)

    def _own(self, layer: Any, parts: tuple[str, ...]) -> None:
        for variable in (*layer._trainable_variables, *layer._non_trainable_variables):
            self._owned.setdefault(id(variable), (*parts, variable.name))
        for inner in getattr(layer, "layers", None) or layer._layers:
            self._own(inner, (*parts, inner.name))

    def _join(self, parts: tuple[str, ...]) -> str:
        return "/".join(self._rename(parts[: index + 1]) for index in range(len(parts)))

    def _rename(self, prefix: tuple[str, ...]) -> str:
        if prefix not in self._renamed:
            unnamed = _unnumbered(prefix[-1])
            base = self._automatic.get(prefix[-1], unnamed if unnamed in _UNNAMED else None)
            if base is None:
                self._renamed[prefix] = prefix[-1]
            else:
                key = (prefix[:-1], base)
                number = self._siblings.get(key, 0)
                self._siblings[key] = number + 1
                self._renamed[prefix] = f"{base}_{number}" if number else base
        return self._renamed[prefix]


def slot_name(slot: Any, weights: Iterable[tuple[Any, str]]) -> str:
    """A stable name for a variable of an optimizer: ``optimizer/<weight>/<slot>`` or ``optimizer/<counter>``.

    Keras's path of it has both names of the process glued together.

    Args:
        slot: the optimizer's variable.
        weights: the trainable variables with their stable names.
    """
    own = slot.path.split("/", 1)[-1]
    for variable, name in weights:
        prefix = variable.path.replace("/", "_") + "_"
        if own.startswith(prefix) and tuple(slot.shape) == tuple(variable.shape):
            return f"optimizer/{name}/{own[len(prefix) :]}"
    return f"optimizer/{_unnumbered(own)}"


def _unnumbered(name: str) -> str:
    """Keras calls a weight that nobody named ``variable_7`` when it is the eighth such of the process."""
    return re.sub(rf"^({'|'.join(_UNNAMED)})_\d+$", r"\1", name)


def snake_case(name: str) -> str:
    """``Conv1D`` to ``conv1d``, ``BatchNormalization`` to ``batch_normalization``, as Keras does."""
    name = re.sub(r"\W+", "", name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _layers(model: Any) -> Iterator[Any]:
    yield from model._flatten_layers(include_self=False, recursive=True)
