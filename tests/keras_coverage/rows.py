"""What is known about one public name of Keras, as data; the modules of the families fill `ROWS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["ROWS", "Row", "base", "covers", "refuses"]

Build = Callable[[], Any]


@dataclass(frozen=True)
class Row:
    """One public class or function of Keras.

    Attributes:
        api: the class or function itself.
        answer: ``yes``, ``no``, or ``base`` for a base class that does nothing of its own.
        models: what is converted: name of the variant to a function that returns a compiled model. For ``no`` the
            converter must refuse each of them.
        gradient: whether it has weights, or passes a gradient on.
        note: for ``no`` the reason, else what a reader should know.
        batch_size: rows of a batch.
    """

    api: Any
    answer: str
    models: Mapping[str, Build]
    gradient: bool = True
    note: str = ""
    batch_size: int = 4


ROWS: dict[Any, Row] = {}


def covers(
    api: Any,
    models: Mapping[str, Build],
    *,
    gradient: bool = True,
    note: str = "",
    batch_size: int = 4,
) -> None:
    """Says that every one of these models converts and trains as in Keras."""
    assert models, api
    _add(Row(api, "yes", models, gradient, note, batch_size))


def refuses(api: Any, reason: str, models: Mapping[str, Build] | None = None, *, gradient: bool = True) -> None:
    """Says that it cannot be converted; the reason lies in mathematics or in the runtimes."""
    _add(Row(api, "no", models or {}, gradient, reason))


def base(api: Any, note: str) -> None:
    """Says that it is a base class, or a container of settings: there is nothing to convert."""
    _add(Row(api, "base", {}, False, note))


def _add(row: Row) -> None:
    assert row.api not in ROWS, f"{row.api} has two rows"
    ROWS[row.api] = row
