"""One rewrite of Keras as data: what is replaced, and by what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Rewrite"]


@dataclass(frozen=True)
class Rewrite:
    """Says what is replaced while a model is traced.

    Attributes:
        owner: the module or class whose attributes are replaced.
        attributes: their names.
        make: takes the original of each attribute and returns what replaces it, as many as there are attributes.
    """

    owner: Any
    attributes: tuple[str, ...]
    make: Callable[..., tuple[Any, ...]]
