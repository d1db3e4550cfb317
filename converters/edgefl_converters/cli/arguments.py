"""Holds what the converter's verbs share: how models and shapes are given, and which code runs for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer

import edgefl_converters
from edgefl.cli.output import progress
from edgefl_converters.flatbuffer.quiet import quiet_tensorflow

__all__ = ["MODEL", "CustomObjectsOption", "announce", "tensorflow"]

MODEL = "A .keras or .h5 file, a SavedModel folder of a Keras model, or module:function that returns a model."

CustomObjectsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--custom-objects",
        help="Python module with classes and functions that the model uses; runs its code; may be repeated.",
    ),
]


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
