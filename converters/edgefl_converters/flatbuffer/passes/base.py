"""The passes by name, each of which says behind which other it runs: that is their order, there is no other list."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from edgefl.errors import InvalidSettingError
from edgefl.plugins import Registry
from edgefl_converters.flatbuffer.pass_context import PassContext

__all__ = ["PASSES", "Pass", "ordered_passes", "register_pass"]

_START = ""
"""The name that the very first pass follows."""


@dataclass(frozen=True)
class Pass:
    """One rewriting of a converted file; calling it does it.

    Attributes:
        name: by which it is switched off.
        run: changes the context's file in place.
        after: name of the pass that it follows. Only one that neither adds nor moves ops may come after ``scheduling``.
        required: True where a file without it is no model file, so that it cannot be switched off.
        runtime: the runtime that gains by it; files that this one is not to run go without. Empty for all files.
    """

    name: str
    run: Callable[[PassContext], None]
    after: str
    required: bool = False
    runtime: str = ""

    def __call__(self, context: PassContext) -> None:
        """Runs it, whatever runtime the file is for."""
        self.run(context)


def _check(name: str, entry: object) -> None:
    """Refuses an entry point that is no pass; when it is loaded, edgefl's own passes are there."""
    if not isinstance(entry, Pass) or entry.name != name:
        raise InvalidSettingError(f"it is no Pass of the name {name!r}.")
    if entry.after not in PASSES.names():
        raise _without_place(entry)


PASSES: Registry[Pass] = Registry("pass", "edgefl.passes", check=_check)
"""All passes; edgefl's own are the modules of this folder."""


def register_pass(
    name: str, *, after: str, required: bool = False, runtime: str = ""
) -> Callable[[Callable[[PassContext], None]], Pass]:
    """A decorator that makes a function a pass: every conversion of this process runs it from then on.

    Args:
        name: as `Registry.register` takes it.
        after: as `Pass` takes it. Of several that follow one pass, the one that was registered last comes first.
        required: as `Pass` takes it.
        runtime: as `Pass` takes it.

    Raises:
        InvalidSettingError: it is no name, or another pass has it.
    """

    def register(run: Callable[[PassContext], None]) -> Pass:
        return PASSES.register(name)(Pass(name, run, after, required, runtime))

    return register


def ordered_passes() -> tuple[Pass, ...]:
    """All passes in the order in which they run.

    Raises:
        InvalidSettingError: one is to follow what is no pass.
    """
    everything = [PASSES.get(name) for name in PASSES.names()]
    behind: defaultdict[str, list[Pass]] = defaultdict(list)
    for each in everything:
        behind[each.after].append(each)
    ordered: list[Pass] = []

    def place_behind(name: str) -> None:
        for each in reversed(behind[name]):
            ordered.append(each)
            place_behind(each.name)

    place_behind(_START)
    for each in everything:
        if each not in ordered:
            raise _without_place(each)
    return tuple(ordered)


def _without_place(pass_: Pass) -> InvalidSettingError:
    return InvalidSettingError(
        f"The pass {pass_.name!r} has no place: it is to follow {pass_.after!r}, which is none.",
        hint=PASSES.nearest(pass_.after),
    )
