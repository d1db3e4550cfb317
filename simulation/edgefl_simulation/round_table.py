"""The rounds of a run as Parquet, where pyarrow is installed."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["parquet"]


def parquet(rows: Sequence[Mapping[str, Any]]) -> bytes | None:
    """A file with a row for each round; what a round does not have is null. None: there is no pyarrow to make it.

    Args:
        rows: plain values by the name of their column, as `History.table` gives them.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:  # also where it does not go with the installed numpy
        return None
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: _column([row.get(name) for row in rows]) for name in names}
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


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
