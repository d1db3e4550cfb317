"""What strategies keep beside the weights, and how many devices there were when a round closed.

Revision ID: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the columns; earlier runs have no slots."""
    op.add_column("runs", sa.Column("slots", sa.JSON, nullable=False, server_default="{}"))
    op.add_column("rounds", sa.Column("base_slots", sa.JSON, nullable=False, server_default="{}"))
    op.add_column("rounds", sa.Column("enrolled", sa.Integer, nullable=False, server_default="0"))


def downgrade() -> None:
    """Drops the columns."""
    op.drop_column("rounds", "enrolled")
    op.drop_column("rounds", "base_slots")
    op.drop_column("runs", "slots")
