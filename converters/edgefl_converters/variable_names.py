"""Finding variables of a model by what users call them: glob patterns over names, layers and kinds of layers."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edgefl.errors import InvalidSettingError
from edgefl_converters.naming import PathNames, unique

__all__ = ["NamedVariable", "choose", "named_variables"]


@dataclass(frozen=True)
class NamedVariable:
    """One variable and everything that a pattern may say of it.

    Attributes:
        variable: Keras's.
        name: the stable name that a model file uses for it.
        layer: the innermost layer that holds it.
        index: of that layer among the model's layers that have variables, in the model's order.
        calls: the name, each run of its parts (a layer that holds it, with or without those around), and the layers'
            own Keras names and classes.
    """

    variable: Any
    name: str
    layer: Any
    index: int
    calls: frozenset[str]


def named_variables(model: Any) -> list[NamedVariable]:
    """The variables of a built model, in the order of ``model.variables``."""
    names = PathNames(model)
    stable = unique(names.of(each) for each in model.variables)
    holders = {id(variable): (layers, index) for layers, index, variable in _holders(model)}
    found = []
    for variable, name in zip(model.variables, stable):
        layers, index = holders.get(id(variable), ((model,), 0))
        found.append(NamedVariable(variable, name, layers[-1], index, frozenset(_calls(name, layers))))
    return found


def choose(
    patterns: Sequence[str], among: Sequence[NamedVariable], what: str, *, also: Callable[[NamedVariable], bool]
) -> set[int]:
    """The variables that any of some patterns matches.

    Args:
        patterns: globs, as ``fnmatch`` has them; a ``*`` goes across ``/``.
        among: the variables.
        what: how an error calls the patterns, such as ``--trainable``.
        also: what a match must be besides; a pattern that only matches others is as good as none.

    Returns:
        Positions in ``among``.

    Raises:
        InvalidSettingError: a pattern matches nothing; the hint has the nearest names.
    """
    chosen: set[int] = set()
    for pattern in patterns:
        matched = {
            position
            for position, each in enumerate(among)
            if also(each) and any(fnmatch.fnmatchcase(call, pattern) for call in each.calls)
        }
        if not matched:
            raise InvalidSettingError(
                f"{what} {pattern!r} matches nothing.", hint=_nearest(pattern, list(filter(also, among)))
            )
        chosen |= matched
    return chosen


def _nearest(pattern: str, among: Sequence[NamedVariable]) -> str:
    calls = sorted({call for each in among for call in each.calls})
    lower = {call.lower(): call for call in calls}
    near = difflib.get_close_matches(pattern.strip("*").lower(), lower, n=3, cutoff=0.5)
    if near:
        return f"Did you mean {', '.join(repr(lower[each]) for each in near)}?"
    shown = sorted({each.name.rpartition("/")[0] or each.name for each in among})
    more = f", … ({len(shown)} in all)" if len(shown) > 8 else ""
    return f"Layers that could be meant: {', '.join(shown[:8])}{more}."


def _calls(name: str, layers: Sequence[Any]) -> Iterator[str]:
    parts = name.split("/")
    for start in range(len(parts)):
        for end in range(start + 1, len(parts) + 1):
            # The last part alone ("kernel") says what a variable is, and that is a fair thing to ask for too.
            yield "/".join(parts[start:end])
    for layer in layers:
        yield layer.name
        yield type(layer).__name__


def _holders(model: Any) -> Iterator[tuple[tuple[Any, ...], int, Any]]:
    """Each variable with the layers around it, outermost first, and the number of the innermost one."""
    seen: set[int] = set()
    numbers: dict[int, int] = {}

    def visit(layer: Any, around: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], int, Any]]:
        own = [each for each in (*layer._trainable_variables, *layer._non_trainable_variables) if id(each) not in seen]
        for each in own:
            seen.add(id(each))
            yield (*around, layer), numbers.setdefault(id(layer), len(numbers)), each
        for inner in getattr(layer, "layers", None) or layer._layers:
            yield from visit(inner, (*around, layer))

    for layer in model.layers:
        yield from visit(layer, ())
    yield from visit(model, ())
