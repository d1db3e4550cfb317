"""Devices that are tagged, blocked, removed, limited, and seen.

Revision ID: 0014
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the columns; devices of before have no tags and no limits, and are seen when they call."""
    op.add_column("devices", sa.Column("tags", sa.JSON, nullable=False, server_default="[]"))
    for name in ("seen_at", "blocked_at", "removed_at"):
        op.add_column("devices", sa.Column(name, sa.Float))
    op.add_column("devices", sa.Column("outcomes_a_day", sa.Integer))
    op.add_column("devices", sa.Column("bytes_a_day", sa.BigInteger))


def downgrade() -> None:
    """Drops the columns. An older server knows no blocked devices: those lose their secret, so that none comes in."""
    op.execute("UPDATE devices SET secret_hash = '' WHERE blocked_at IS NOT NULL")
    for name in ("bytes_a_day", "outcomes_a_day", "removed_at", "blocked_at", "seen_at", "tags"):
        op.drop_column("devices", name)
