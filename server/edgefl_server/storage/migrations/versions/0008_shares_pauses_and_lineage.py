"""Shares of devices between runs, pauses, where a version came from, and whom a cohort admits when.

Revision ID: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the columns; each version of before came from the one before it."""
    op.add_column("runs", sa.Column("served", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("runs", sa.Column("paused_clock", sa.Float))
    op.add_column("versions", sa.Column("parent", sa.Integer))
    op.add_column("versions", sa.Column("made_at", sa.Float))
    op.add_column("cohorts", sa.Column("admits", sa.JSON, nullable=False, server_default="{}"))
    op.add_column("folds", sa.Column("devices", sa.Integer))
    op.add_column("folds", sa.Column("bytes_up", sa.BigInteger))
    op.execute("UPDATE runs SET served = accepted")
    op.execute("UPDATE versions SET parent = number - 1 WHERE number > 0")


def downgrade() -> None:
    """Drops the columns."""
    for table, column in (
        ("folds", "bytes_up"),
        ("folds", "devices"),
        ("cohorts", "admits"),
        ("versions", "made_at"),
        ("versions", "parent"),
        ("runs", "paused_clock"),
        ("runs", "served"),
    ):
        op.drop_column(table, column)
