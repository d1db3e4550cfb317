"""The bytes that devices fetch for a fold, in a column of their own: as figures of its updates, equal folds differed.

Revision ID: 0010
"""

from __future__ import annotations

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
    for run, number, diagnostics, _ in _rows():
        figures = dict(diagnostics)
        if "bytes_down" in figures:
            fetched = int(figures.pop("bytes_down"))
            _set(run, number, {"diagnostics": figures, "bytes_down": fetched})


def downgrade() -> None:
    """Moves the figures back, and drops the column."""
    for run, number, diagnostics, fetched in _rows():
        if fetched is not None:
            _set(run, number, {"diagnostics": {**diagnostics, "bytes_down": float(fetched)}})
    op.drop_column("folds", "bytes_down")


def _rows() -> list[sa.Row[tuple[str, int, dict[str, float], int | None]]]:
    return list(op.get_bind().execute(sa.select(_FOLDS)))


def _set(run: str, number: int, values: dict[str, object]) -> None:
    op.get_bind().execute(sa.update(_FOLDS).where(_FOLDS.c.run == run, _FOLDS.c.number == number).values(values))
