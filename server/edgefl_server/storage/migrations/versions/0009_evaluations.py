"""Runs that evaluate the weights of others, and what a fold finds beside weights.

Revision ID: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the columns; runs of before evaluate none, and their folds found nothing."""
    op.add_column("runs", sa.Column("evaluates", sa.String(32), nullable=False, server_default=""))
    op.create_index("runs_by_evaluated", "runs", ["evaluates"])
    op.add_column("runs", sa.Column("evaluation_data", sa.String(64), nullable=False, server_default=""))
    op.create_table(
        "central_evaluations",
        sa.Column("run", sa.String(32), sa.ForeignKey("runs.run"), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("why", sa.String(500), nullable=False),
        sa.Column("examples", sa.BigInteger, nullable=False),
        sa.Column("metrics", sa.JSON, nullable=False),
        sa.Column("ended_at", sa.Float, nullable=False),
    )
    op.add_column("folds", sa.Column("findings", sa.JSON, nullable=False, server_default="{}"))


def downgrade() -> None:
    """Drops the columns and the table."""
    op.drop_column("folds", "findings")
    op.drop_table("central_evaluations")
    op.drop_column("runs", "evaluation_data")
    op.drop_index("runs_by_evaluated", "runs")
    op.drop_column("runs", "evaluates")
