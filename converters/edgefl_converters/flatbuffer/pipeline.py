"""Chooses the passes that run over a converted file, and runs them.

A pass of your own goes in without touching anything here: see `passes.base`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from edgefl.errors import InvalidSettingError
from edgefl.targets import included
from edgefl_converters.flatbuffer.pass_context import PassContext
from edgefl_converters.flatbuffer.passes import PASSES, Pass, ordered_passes

__all__ = ["chosen_passes", "run_passes"]


def chosen_passes(without: Collection[str] = ()) -> tuple[Pass, ...]:
    """The passes in the order in which they run, but for some.

    Args:
        without: the names of those that are left out; each can be switched off unless it is `Pass.required`.

    Raises:
        InvalidSettingError: there is no pass of a name (the hint is the nearest one), or it cannot be left out.
    """
    ordered = ordered_passes()
    for name in without:
        if PASSES.get(name).required:
            raise InvalidSettingError(
                f"The pass {name!r} cannot be left out: without it the file is no model file.",
                hint=f"These can: {', '.join(each.name for each in ordered if not each.required)}.",
            )
    return tuple(each for each in ordered if each.name not in without)


def run_passes(context: PassContext, chosen: Sequence[Pass]) -> None:
    """Runs passes over a file, but for those that only gain on a runtime that the file is not made for."""
    runtimes = {each.runtime for each in included(context.target)}
    for each in chosen:
        if not each.runtime or each.runtime in runtimes:
            each.run(context)
