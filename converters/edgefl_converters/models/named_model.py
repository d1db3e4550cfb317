"""A Keras model with the names that model files use: made once for each model, and passed along."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from edgefl_converters.models.naming import PathNames, unique

__all__ = ["NamedModel", "NamedVariable"]


@dataclass(frozen=True)
class NamedVariable:
    """One variable and everything that a pattern may say of it.

    Attributes:
        variable: Keras's.
        name: the stable name that a model file uses for it.
        layer: the innermost layer that holds it.
        index: of that layer among the model's layers that have variables, in the model's order.
        calls: each run of the name's parts (a layer that holds it, with or without those around), those from its
            beginning also with a ``/`` in front, and the classes of the layers that hold it.
        keras_calls: what Keras calls these layers in this process.
    """

    variable: Any
    name: str
    layer: Any
    index: int
    calls: frozenset[str]
    keras_calls: frozenset[str]


class NamedModel:
    """A built Keras model whose layers and variables have stable names.

    The names are those that the model has now: one that is given other layers or adapters is named anew.

    Args:
        model: built.

    Attributes:
        model: the Keras model.
        names: of its layers, and of whatever else is named by a path of Keras's.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.names = PathNames(model)
        # At once, while the model is as it was when it was named.
        variables = list(model.variables)
        stable = unique(self.names.of(each) for each in variables)
        self._variables = dict(zip(stable, variables, strict=True))
        self._names = {id(variable): name for name, variable in self._variables.items()}

    @classmethod
    def of(cls, model: Any) -> NamedModel:
        """The model if it is a named one, else a Keras model with its names."""
        return model if isinstance(model, cls) else cls(model)

    @property
    def variables(self) -> dict[str, Any]:
        """All variables by the names that a model file uses for its parameters, in Keras's order."""
        return self._variables

    def name_of(self, variable: Any) -> str:
        """The name of one of the model's variables."""
        return self._names[id(variable)]

    @cached_property
    def described(self) -> list[NamedVariable]:
        """The variables but for random states, in Keras's order, with everything that a pattern may say of them."""
        holders = {id(variable): (layers, index) for layers, index, variable in _holders(self.model)}
        found, weights = [], {id(each) for each in self.model.weights}
        for name, variable in self._variables.items():
            if id(variable) not in weights:
                continue
            layers, index = holders.get(id(variable), ((self.model,), 0))
            calls = frozenset([*_runs(name), *(type(layer).__name__ for layer in layers)])
            keras_calls = frozenset(layer.name for layer in layers)
            found.append(NamedVariable(variable, name, layers[-1], index, calls, keras_calls))
        return found


def _runs(name: str) -> Iterator[str]:
    parts = name.split("/")
    for start in range(len(parts)):
        for end in range(start + 1, len(parts) + 1):
            # The last part alone ("kernel") says what a variable is, and that is a fair thing to ask for too.
            run = "/".join(parts[start:end])
            yield run
            if start == 0:
                yield f"/{run}"


def _holders(model: Any) -> Iterator[tuple[tuple[Any, ...], int, Any]]:
    """Each variable with the layers around it, outermost first, and the number of the innermost one."""
    seen: set[int] = set()
    numbers: dict[int, int] = {}

    def visit(layer: Any, around: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], int, Any]]:
        for each in (*layer._trainable_variables, *layer._non_trainable_variables):
            if id(each) in seen:
                continue
            seen.add(id(each))
            yield (*around, layer), numbers.setdefault(id(layer), len(numbers)), each
        for inner in getattr(layer, "layers", None) or layer._layers:
            yield from visit(inner, (*around, layer))

    for layer in model.layers:
        yield from visit(layer, ())
    yield from visit(model, ())
