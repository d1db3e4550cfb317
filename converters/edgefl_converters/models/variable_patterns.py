"""Finding variables of a model by what users call them: glob patterns over names, layers and kinds of layers."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Iterable, Sequence

from edgefl.errors import InvalidSettingError
from edgefl_converters.models.named_model import NamedVariable

__all__ = ["choose"]


def choose(
    patterns: Sequence[str], among: Sequence[NamedVariable], what: str, *, also: Callable[[NamedVariable], bool]
) -> set[int]:
    """The variables that any of some patterns matches.

    Args:
        patterns: globs, as ``fnmatch`` has them; a ``*`` goes across ``/``.
        among: the variables.
        what: how an error calls the patterns: the setting's name in backticks.
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
