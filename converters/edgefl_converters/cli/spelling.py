"""Settings in errors, as the command line spells them.

The converter names a setting as Python does, in backticks, with a value where it recommends one: `` `micro_batch` ``,
`` `target='litert-2'` ``, `` `input_shape=(100, 6)` ``. Whoever typed a command reads ``--micro-batch``,
``--target litert-2``, ``--input-shape 100,6``.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager

import edgefl_converters
from edgefl.errors import EdgeflError

__all__ = ["SETTINGS", "as_options", "option_of", "spelled_as_options"]

_ONE_BY_ONE = {"metrics": "metric", "algorithms": "algorithm", "lora_targets": "lora_target"}
"""Settings that are lists in Python; their options are given once for each item."""
_NOT_TYPED = {"model", "file", "fine_tuning", "without_passes", "on_progress", "on_layers"}
"""Arguments of the functions that are no options."""


def _settings() -> Iterator[str]:
    for function in (edgefl_converters.convert, edgefl_converters.verify, edgefl_converters.export):
        yield from inspect.signature(function).parameters
    yield from (each.name for each in dataclasses.fields(edgefl_converters.FineTuning))


SETTINGS = frozenset(_settings()) - _NOT_TYPED
"""The names of all settings that have an option, as Python has them."""

_NAMED = re.compile(r"(?<!`)`(\w+)(?:=([^`]+))?`(?!`)")


@contextmanager
def spelled_as_options() -> Iterator[None]:
    """Lets errors that pass through name settings as options; also a decorator of a verb."""
    try:
        yield
    except EdgeflError as error:
        error.message = as_options(error.message)
        error.hint = None if error.hint is None else as_options(error.hint)
        error.args = (error.message,)
        raise


def as_options(text: str) -> str:
    """A text of the converter with its settings named as options."""
    return _NAMED.sub(lambda found: _option(found[1], found[2]) or found[0], text)


def option_of(name: str) -> str:
    """The option of a setting."""
    return f"--{_ONE_BY_ONE.get(name, name).replace('_', '-')}"


def _option(name: str, value: str | None) -> str | None:
    if name not in SETTINGS:
        return None
    option = option_of(name)
    if value is None:
        return option
    try:
        given = ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):  # all that `literal_eval` raises
        return None  # not a recommendation of the converter's but somebody's own text
    if isinstance(given, bool):
        return option if given else f"--no-{option.removeprefix('--')}"
    return f"{option} {','.join(map(str, given)) if isinstance(given, tuple) else given}"
