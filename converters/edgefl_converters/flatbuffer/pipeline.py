"""The passes over a converted file, by name and in the order in which they run.

A pass of your own goes in without touching this module: give it to `register_pass`, or name it as an entry point of the
group ``edgefl.passes``. Every conversion then runs it; `Options.without_passes` switches passes off by name.
"""

from __future__ import annotations

import difflib
import functools
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points

from edgefl.errors import InvalidSettingError
from edgefl.reasons import reason
from edgefl.targets import included
from edgefl_converters.flatbuffer.pass_context import PassContext
from edgefl_converters.flatbuffer.passes import (
    control_dependencies,
    equal_buffers,
    flat_products,
    frozen_constants,
    names,
    own_buffers,
    primary_signature,
    rematerialising,
    repeated_constants,
    repeated_outputs,
    scheduling,
    transposed_kernels,
    variable_reads,
)

__all__ = ["BUILT_IN", "GROUP", "Pass", "chosen_passes", "passes", "register_pass", "run_passes", "unregister_pass"]

GROUP = "edgefl.passes"
"""The group of entry points whose objects are passes."""

_LITERT = "ai-edge-litert"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pass:
    """One rewriting of a converted file.

    Attributes:
        name: by which it is switched off.
        run: changes the context's file in place.
        after: name of the pass that it follows. Only one that neither adds nor moves ops may come after ``scheduling``.
        required: True where a file without it is no model file, so that it cannot be switched off.
        runtime: the runtime that gains by it; files that this one is not to run go without. Empty for all files.
    """

    name: str
    run: Callable[[PassContext], None]
    after: str = "variable_reads"
    required: bool = False
    runtime: str = ""


BUILT_IN: tuple[Pass, ...] = (
    # Before constants are stored in fewer bytes: it drops reshapes of weights, which are then constants themselves.
    Pass("flat_products", flat_products.flatten_all_products, ""),
    Pass("frozen_constants", frozen_constants.store_frozen_constants, "flat_products", required=True),
    # Before equal buffers are shared: a parameter keeps its own.
    Pass("own_buffers", own_buffers.give_own_buffers, "frozen_constants", required=True),
    Pass("equal_buffers", equal_buffers.share_equal_buffers, "own_buffers"),
    Pass("repeated_constants", repeated_constants.compute_repeated_constants, "equal_buffers"),
    Pass("repeated_outputs", repeated_outputs.separate_outputs, "repeated_constants", required=True),
    Pass("primary_signature", primary_signature.make_train_primary, "repeated_outputs", required=True),
    # Looks at the first subgraph, and at kernels that are read once.
    Pass("transposed_kernels", transposed_kernels.transpose_kernels, "primary_signature", runtime=_LITERT),
    Pass("variable_reads", variable_reads.read_variables_at_each_use, "transposed_kernels", runtime=_LITERT),
    Pass("scheduling", scheduling.schedule, "variable_reads"),
    # Looks at how long tensors wait in the order that was chosen.
    Pass("rematerialising", rematerialising.rematerialise, "scheduling"),
    # Says in what order all ops lie in the end.
    Pass("control_dependencies", control_dependencies.keep_order, "rematerialising"),
    Pass("names", names.drop_names, "control_dependencies", required=True),
)
"""The passes that edgefl brings, in the order in which they run."""

_registered: dict[str, Pass] = {}


def register_pass(pass_: Pass) -> Pass:
    """Lets every conversion of this process run a further pass.

    Args:
        pass_: runs right behind the one that it names, and behind others that were registered there before.

    Returns:
        The pass.

    Raises:
        InvalidSettingError: there is a pass of its name, or none of the name that it is to follow.
    """
    _require_new(pass_, [*BUILT_IN, *_registered.values(), *_installed()])
    _registered[pass_.name] = pass_
    return pass_


def unregister_pass(name: str) -> None:
    """Takes back what `register_pass` did."""
    del _registered[name]


def passes() -> tuple[Pass, ...]:
    """All passes, in the order in which they run: edgefl's, those that are installed, those that were registered."""
    ordered = list(BUILT_IN)
    for added in (*_installed(), *_registered.values()):
        place = next(index for index, each in enumerate(ordered) if each.name == added.after) + 1
        while place < len(ordered) and ordered[place] not in BUILT_IN and ordered[place].after == added.after:
            place += 1
        ordered.insert(place, added)
    return tuple(ordered)


def chosen_passes(without: Collection[str] = ()) -> tuple[Pass, ...]:
    """The passes but for some.

    Args:
        without: their names.

    Raises:
        InvalidSettingError: there is no pass of a name, or it cannot be left out.
    """
    known = {each.name: each for each in passes()}
    for name in without:
        if name not in known:
            raise InvalidSettingError(f"There is no pass {name!r}.", hint=_nearest(name, list(known)))
        if known[name].required:
            raise InvalidSettingError(
                f"The pass {name!r} cannot be left out: without it the file is no model file.",
                hint=f"These can: {', '.join(each.name for each in known.values() if not each.required)}.",
            )
    return tuple(each for each in known.values() if each.name not in without)


def run_passes(context: PassContext, chosen: Sequence[Pass]) -> None:
    """Runs passes over a file, but for those that only gain on a runtime that the file is not made for."""
    runtimes = {each.runtime for each in included(context.target)}
    for each in chosen:
        if not each.runtime or each.runtime in runtimes:
            each.run(context)


@functools.cache
def _installed() -> tuple[Pass, ...]:
    """The passes of installed distributions; one that cannot be used is named in a warning and left out."""
    found: list[Pass] = []
    for entry in sorted(entry_points(group=GROUP), key=lambda each: each.name):
        try:
            loaded = entry.load()
            if not isinstance(loaded, Pass):
                raise TypeError(f"it is a {type(loaded).__name__}, not a Pass")
            _require_new(loaded, [*BUILT_IN, *found])
        except Exception as error:
            owner = f" of {entry.dist.name}" if entry.dist is not None else ""
            _log.warning("The pass %r (%s)%s is left out: %s", entry.name, entry.value, owner, reason(error))
        else:
            found.append(loaded)
    return tuple(found)


def _require_new(pass_: Pass, known: Sequence[Pass]) -> None:
    names = [each.name for each in known]
    if pass_.name in names:
        raise InvalidSettingError(f"There is a pass {pass_.name!r} already.", hint="Give yours another name.")
    if pass_.after not in names:
        raise InvalidSettingError(
            f"The pass {pass_.name!r} is to follow {pass_.after!r}, which is none.", hint=_nearest(pass_.after, names)
        )


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"Did you mean {near[0]!r}?" if near else f"Expected one of {', '.join(known)}."
