"""All rewrites of Keras by name, and Keras while they hold."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from edgefl_converters.training_step.keras_rewrites import (
    addition,
    batch_normalization,
    gelu,
    layer_normalization,
    lstm,
    recurrence,
)
from edgefl_converters.training_step.keras_rewrites.rewrite import Rewrite

__all__ = ["REWRITES", "rewritten_keras"]

REWRITES: dict[str, Rewrite] = {
    "addition": addition.REWRITE,
    "recurrence": recurrence.REWRITE,
    "lstm": lstm.REWRITE,
    "gelu": gelu.REWRITE,
    "layer_normalization": layer_normalization.REWRITE,
    "batch_normalization": batch_normalization.REWRITE,
}


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
