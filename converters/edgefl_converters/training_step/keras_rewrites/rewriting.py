"""All rewrites of Keras by name, and Keras while they hold."""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
from collections.abc import Iterator

from edgefl_converters.training_step import keras_rewrites
from edgefl_converters.training_step.keras_rewrites.rewrite import Rewrite

__all__ = ["REWRITES", "WRITTEN_OUT", "rewritten_keras"]


def _found() -> Iterator[tuple[str, Rewrite]]:
    for module in sorted(each.name for each in pkgutil.iter_modules(keras_rewrites.__path__)):
        found = importlib.import_module(f"{keras_rewrites.__name__}.{module}")
        if hasattr(found, "REWRITE"):
            yield module, found.REWRITE
        yield from getattr(found, "REWRITES", {}).items()


REWRITES: dict[str, Rewrite] = dict(_found())
"""The ``REWRITE`` of each module of this folder that has one, by the module's name, and the ``REWRITES`` of those that
have several, by theirs; no two replace one thing."""

WRITTEN_OUT = ("functions", "loops", "tensor_arrays")
"""Those without which a model's outputs may have unknown shapes."""


@contextlib.contextmanager
def rewritten_keras(*names: str) -> Iterator[None]:
    """Lets Keras compute some things another way, and puts everything back.

    Args:
        names: of `REWRITES`; all of them if none is given.
    """
    originals: list[tuple[Rewrite, list[object]]] = []
    try:
        for name in names or REWRITES:
            rewrite = REWRITES[name]
            found = [getattr(rewrite.owner, attribute) for attribute in rewrite.attributes]
            originals.append((rewrite, found))
            for attribute, replacement in zip(rewrite.attributes, rewrite.make(*found), strict=True):
                setattr(rewrite.owner, attribute, replacement)
        yield
    finally:
        for rewrite, found in reversed(originals):
            for attribute, original in zip(rewrite.attributes, found, strict=True):
                setattr(rewrite.owner, attribute, original)
