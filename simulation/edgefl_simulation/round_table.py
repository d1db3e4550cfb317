"""The rounds of a run as a table of plain columns, and as Parquet, where pyarrow is installed."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["flat", "parquet"]


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A round with nothing nested in it: ``central.accuracy``, ``federated.loss.quantiles.0.5``, ``outcomes.done``.

    Lists keep their elements; what tells something in words stays a list of text.

    Args:
        row: as `edgefl_simulation.history.row_of` makes it.
    """
    return dict(_leaves(row, ""))


def parquet(rows: Sequence[Mapping[str, Any]]) -> bytes | None:
    """A table with a row for each round; what a round does not have is null. None: there is no pyarrow to make it.

    Args:
        rows: as in `flat`.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:  # also where it does not go with the installed numpy
        return None
    plain = [flat(row) for row in rows]
    names = list(dict.fromkeys(name for row in plain for name in row))
    columns = {name: _column([row.get(name) for row in plain]) for name in names}
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def _leaves(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, each in value.items():
        if isinstance(each, Mapping):
            yield from _leaves(each, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", each


def _column(values: list[Any]) -> Any:
    """Numbers as they are; a column of whole numbers and fractions becomes one of fractions, any other mixture text."""
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        values = [None if value is None else float(value) for value in values]
    elif len(kinds) > 1:
        values = [None if value is None else str(value) for value in values]
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):  # a list of different things, or a number beyond 64 bits
        return pa.array([None if value is None else str(value) for value in values])
