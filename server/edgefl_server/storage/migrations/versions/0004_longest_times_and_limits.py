"""When tasks were handed out, and what a run's model says about outcomes.

Revision ID: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the columns. Tasks that are open count from the end of their lease; earlier runs know no limits."""
    op.add_column("runs", sa.Column("limits", sa.JSON, nullable=False, server_default="{}"))
    op.add_column("assignments", sa.Column("assigned_clock", sa.Float, nullable=False, server_default="0"))
    op.execute("UPDATE assignments SET assigned_clock = leased_until_clock")


def downgrade() -> None:
    """Drops the columns."""
    op.drop_column("assignments", "assigned_clock")
    op.drop_column("runs", "limits")
