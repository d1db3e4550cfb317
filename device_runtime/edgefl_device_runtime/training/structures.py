"""Inputs and outputs nested as a manifest says it: lists and dicts of positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["flatten", "keys", "keys_by_position", "nest"]


def nest(structure: Any, values: Sequence[Any]) -> Any:
    """Puts values where their positions stand.

    Args:
        structure: lists and dicts with a position at each leaf; None for a list, of which one value stands alone.
        values: one for each position.
    """
    if structure is None:
        return values[0] if len(values) == 1 else list(values)
    if isinstance(structure, Mapping):
        return {key: nest(each, values) for key, each in structure.items()}
    if isinstance(structure, list):
        return [nest(each, values) for each in structure]
    return values[structure]


def flatten(structure: Any, given: Any) -> dict[int, Any] | None:
    """Finds the value of each position.

    Args:
        structure: as `nest` takes it.
        given: values, nested alike; a dict may lack keys, and None stands for a value that is not there.

    Returns:
        The values by position; None where `given` is not nested like that.
    """
    if isinstance(structure, Mapping):
        if not isinstance(given, Mapping) or not set(given) <= set(structure):
            return None
        found = [flatten(structure[key], value) for key, value in given.items()]
    elif isinstance(structure, list):
        if not isinstance(given, (list, tuple)) or len(given) != len(structure):
            return None
        found = [flatten(each, value) for each, value in zip(structure, given, strict=True)]
    else:
        return {} if structure is None or given is None else {structure: given}
    together: dict[int, Any] = {}
    for each in found:
        if each is None:
            return None
        together.update(each)
    return together


def keys(structure: Any) -> tuple[str, ...]:
    """The keys that a dict of several values needs; none where their order says which is which."""
    return tuple(structure) if isinstance(structure, Mapping) and len(structure) > 1 else ()


def keys_by_position(structure: Any) -> dict[int, str]:
    """The key under which a dict has each of its values; nothing for those that are nested deeper."""
    if not isinstance(structure, Mapping):
        return {}
    return {each: key for key, each in structure.items() if isinstance(each, int)}
