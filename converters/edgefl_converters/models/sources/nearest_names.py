"""The names that Keras knows, and the nearest one to a name that it does not."""

from __future__ import annotations

import difflib
import re
from typing import Any

from edgefl_converters.models.sources.keras_errors import unknown_name

__all__ = ["classes", "near_hint", "nearest", "public"]


def classes() -> list[str]:
    """Public names of Keras that a model's configuration may hold."""
    import keras

    parts = (keras.layers, keras.losses, keras.optimizers, keras.metrics, keras.activations, keras.initializers)
    return [name for part in parts for name in public(part)]


def public(module: Any) -> list[str]:
    """Returns what a module of Keras offers by name, without what only helps to look names up."""
    return [
        name
        for name in dir(module)
        if not name.startswith("_")
        and name not in ("get", "serialize", "deserialize", "legacy", "schedules", "Loss", "Metric", "Optimizer")
    ]


def nearest(name: str, candidates: list[str], cutoff: float = 0.5) -> str | None:
    """The known name most like one that is not, whatever its upper and lower case and underscores."""
    plain = {re.sub(r"[^a-z0-9]", "", candidate.lower()): candidate for candidate in candidates}
    found = difflib.get_close_matches(re.sub(r"[^a-z0-9]", "", name.lower()), plain, n=1, cutoff=cutoff)
    return plain[found[0]] if found else None


def near_hint(error: BaseException) -> str | None:
    """The nearest name to one that Keras did not know while it built a model."""
    unknown = unknown_name(error)
    # What a module lacks is more often a function of another version than a name with a letter wrong.
    near = None if unknown is None else nearest(unknown, classes(), 0.75 if isinstance(error, AttributeError) else 0.5)
    return f"Did you mean {near!r}?" if near else None
