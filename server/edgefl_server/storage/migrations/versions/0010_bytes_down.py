"""The bytes that devices fetch for a fold, in a column of their own: as figures of its updates, equal folds differed.

Revision ID: 0010
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_FOLDS = sa.table(
    "folds",
    sa.column("run", sa.String),
    sa.column("number", sa.Integer),
    sa.column("diagnostics", sa.JSON),
    sa.column("bytes_down", sa.BigInteger),
)


def upgrade() -> None:
    """Adds the column, and moves the figures of folds that have one."""
    op.add_column("folds", sa.Column("bytes_down", sa.BigInteger))
    for row in _rows():
        figures = dict(row.diagnostics)
        if "bytes_down" in figures:
            fetched = int(figures.pop("bytes_down"))
            _set(row, {"diagnostics": figures, "bytes_down": fetched})


def downgrade() -> None:
    """Moves the figures back, and drops the column."""
    for row in _rows():
        if row.bytes_down is not None:
            _set(row, {"diagnostics": {**row.diagnostics, "bytes_down": float(row.bytes_down)}})
    op.drop_column("folds", "bytes_down")


def _rows() -> list[sa.Row[Any]]:
    return list(op.get_bind().execute(sa.select(_FOLDS)))


def _set(row: sa.Row[Any], values: dict[str, object]) -> None:
    of_row = (_FOLDS.c.run == row.run, _FOLDS.c.number == row.number)
    op.get_bind().execute(sa.update(_FOLDS).where(*of_row).values(values))
