"""Holds what the converter's verbs share: how models and shapes are given, and which code runs for them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer

import edgefl_converters
from edgefl.cli.output import progress
from edgefl.errors import InvalidSettingError
from edgefl_converters.flatbuffer.quiet import quiet_tensorflow

__all__ = ["MODEL", "CustomObjectsOption", "announce", "parse_batch_sizes", "parse_shapes", "tensorflow"]

MODEL = "A .keras or .h5 file, a SavedModel folder of a Keras model, or module:function that returns a model."

CustomObjectsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--custom-objects",
        help="Python module with classes and functions that the model uses; runs its code; may be repeated.",
    ),
]


def parse_batch_sizes(given: str) -> int | list[int]:
    """Reads ``32``, or ``1,8,32`` for a file of several batch sizes.

    Raises:
        InvalidSettingError: it is neither.
    """
    if not re.fullmatch(r"\s*-?\d+\s*(,\s*-?\d+\s*)*", given):
        raise InvalidSettingError(f"Expected a batch size such as 32, or several such as 1,8,32, got {given!r}.")
    sizes = [int(size) for size in given.split(",")]
    return sizes[0] if len(sizes) == 1 else sizes


def parse_shapes(given: Sequence[str], what: str) -> tuple[int, ...] | dict[str, tuple[int, ...]]:
    """Reads ``100,6`` for a model with one ``input`` or ``target``, or ``name=100,6`` once for each.

    Raises:
        InvalidSettingError: it is neither.
    """
    named: dict[str, tuple[int, ...]] = {}
    for text in given:
        name, _, sizes = text.rpartition("=")
        if what == "target" and not sizes.strip():
            named[name] = ()
            continue
        if not re.fullmatch(r"\s*\d+\s*(,\s*\d+\s*)*", sizes) or (not name and len(given) > 1):
            raise InvalidSettingError(
                f"Expected the shape of an {what} without the batch, such as 100,6 or name=100,6, got {text!r}."
                if what == "input"
                else f"Expected the shape of a {what} without the batch, such as 2 or name=2, got {text!r}.",
                hint=f"For several {what}s repeat it: --{what}-shape left=100,6 --{what}-shape right=3.",
            )
        named[name] = tuple(map(int, sizes.split(",")))
    return named[""] if list(named) == [""] else named


@contextmanager
def tensorflow() -> Iterator[None]:
    """Answers with the install line before TensorFlow is missed, and keeps TensorFlow's chatter back."""
    edgefl_converters.require_tensorflow()
    with quiet_tensorflow():
        yield


def announce(modules: Sequence[str] | None) -> Sequence[str] | None:
    """Says which modules' code is about to run, and returns them."""
    for name in modules or ():
        progress(f"running the code of module {name}")
    return modules
