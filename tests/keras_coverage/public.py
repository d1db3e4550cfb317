"""The public names of Keras that the coverage is about."""

from __future__ import annotations

import inspect
from typing import Any

import keras

__all__ = ["SECTIONS", "aliases", "public"]

SECTIONS = ("layers", "losses", "optimizers", "metrics", "activations")


def public(section: str) -> dict[Any, tuple[str, ...]]:
    """Every public class of ``keras.<section>``, for the activations every function, with all names it goes by."""
    wanted = inspect.isfunction if section == "activations" else inspect.isclass
    module = getattr(keras, section)
    found: dict[Any, tuple[str, ...]] = {}
    for name in sorted(dir(module)):
        each = getattr(module, name)
        if not name.startswith("_") and wanted(each) and name not in ("get", "serialize", "deserialize"):
            found[each] = (*found.get(each, ()), name)
    return found


def aliases(section: str, api: Any) -> tuple[str, ...]:
    """The names of one of them, the one that its definition has first."""
    return tuple(sorted(public(section)[api], key=lambda name: (name != api.__name__, name)))
