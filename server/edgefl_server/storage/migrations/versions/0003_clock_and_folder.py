"""A clock that only grows, which folder the database belongs to, what is pruned, and devices that exist twice.

Revision ID: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_RENAMED = (
    ("rounds", "started_at", "started_clock"),
    ("rounds", "ended_at", "ended_clock"),
    ("assignments", "leased_until", "leased_until_clock"),
    ("assignments", "ended_at", "ended_clock"),
)


def upgrade() -> None:
    """The clock goes on from the dates that measured durations before."""
    op.create_table(
        "folder",
        sa.Column("row", sa.Integer, primary_key=True),
        sa.Column("folder", sa.String(32), nullable=False),
        sa.Column("clock", sa.Float, nullable=False),
        sa.Column("date", sa.Float, nullable=False),
        sa.Column("boot", sa.String(64), nullable=False),
        sa.Column("boottime", sa.Float, nullable=False),
    )
    for table, old, new in _RENAMED:
        op.execute(f"ALTER TABLE {table} RENAME COLUMN {old} TO {new}")
    op.add_column("devices", sa.Column("doubled_at", sa.Float))
    op.add_column("runs", sa.Column("created_clock", sa.Float, nullable=False, server_default="0"))
    op.execute("UPDATE runs SET created_clock = created_at")
    op.add_column("rounds", sa.Column("opened_clock", sa.Float, nullable=False, server_default="0"))
    op.execute("UPDATE rounds SET opened_clock = opened_at")
    op.add_column("rounds", sa.Column("pruned", sa.JSON, nullable=False, server_default="{}"))


def downgrade() -> None:
    """Drops them; dates are approximately what the clock said."""
    for table, old, new in _RENAMED:
        op.execute(f"ALTER TABLE {table} RENAME COLUMN {new} TO {old}")
    op.drop_column("rounds", "pruned")
    op.drop_column("rounds", "opened_clock")
    op.drop_column("runs", "created_clock")
    op.drop_column("devices", "doubled_at")
    op.drop_table("folder")
