"""Runs that evaluate the weights of others, and what a fold finds beside weights.

Revision ID: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the columns; runs of before evaluate none, and their folds found nothing."""
    op.add_column("runs", sa.Column("evaluates", sa.String(32), nullable=False, server_default=""))
    op.create_index("runs_by_evaluated", "runs", ["evaluates"])
    op.add_column("folds", sa.Column("findings", sa.JSON, nullable=False, server_default="{}"))
