"""Finding variables of a model by what users call them: glob patterns over names, layers and kinds of layers."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edgefl.errors import InvalidSettingError
from edgefl_converters.models.naming import PathNames, unique

__all__ = ["NamedVariable", "choose", "named_variables"]


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


def named_variables(model: Any) -> list[NamedVariable]:
    """The variables of a built model but for its random states, in the order of ``model.variables``."""
    names = PathNames(model)
    stable = unique(names.of(each) for each in model.variables)
    holders = {id(variable): (layers, index) for layers, index, variable in _holders(model)}
    found, weights = [], {id(each) for each in model.weights}
    for variable, name in zip(model.variables, stable):
        if id(variable) not in weights:
            continue
        layers, index = holders.get(id(variable), ((model,), 0))
        calls = frozenset([*_runs(name), *(type(layer).__name__ for layer in layers)])
        keras_calls = frozenset(layer.name for layer in layers)
        found.append(NamedVariable(variable, name, layers[-1], index, calls, keras_calls))
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
        InvalidSettingError: a pattern matches nothing, and the hint has the nearest names; or it means one layer by
            Keras's name and another by that of the model file.
    """
    chosen: set[int] = set()
    for pattern in patterns:
        able = [(position, each) for position, each in enumerate(among) if also(each)]
        matched = {position for position, each in able if _any_is(each.calls, pattern)}
        by_keras = {position for position, each in able if _any_is(each.keras_calls, pattern)}
        if matched and by_keras - matched:
            raise _ambiguous(what, pattern, among[min(by_keras - matched)], among[min(matched)])
        if not matched | by_keras:
            raise InvalidSettingError(
                f"{what} {pattern!r} matches nothing.", hint=_nearest(pattern, [each for _, each in able])
            )
        chosen |= matched | by_keras
    return chosen


def _any_is(calls: Iterable[str], pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(call, pattern) for call in calls)


def _ambiguous(what: str, pattern: str, by_keras: NamedVariable, matched: NamedVariable) -> InvalidSettingError:
    return InvalidSettingError(
        f"{what} {pattern!r} means two things: Keras calls {by_keras.name!r} so in this process, the model file "
        f"calls {matched.name!r} so.",
        hint="Give the layers names of their own (name=...), or begin the pattern with a / to mean the model file.",
    )


def _nearest(pattern: str, among: Sequence[NamedVariable]) -> str:
    calls = sorted({call for each in among for call in each.calls | each.keras_calls if not call.startswith("/")})
    lower = {call.lower(): call for call in calls}
    near = difflib.get_close_matches(pattern.strip("*").lower(), lower, n=3, cutoff=0.5)
    if near:
        return f"Did you mean {', '.join(repr(lower[each]) for each in near)}?"
    shown = list(dict.fromkeys(each.name.rpartition("/")[0] or each.name for each in among))
    more = f", … ({len(shown)} in all)" if len(shown) > 8 else ""
    return f"Layers that could be meant: {', '.join(shown[:8])}{more}."


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
