"""How far the server has come, to tell an older database from the newest.

Revision ID: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column."""
    op.add_column("folder", sa.Column("generation", sa.BigInteger, nullable=False, server_default="0"))


def downgrade() -> None:
    """Drops the column."""
    op.drop_column("folder", "generation")
