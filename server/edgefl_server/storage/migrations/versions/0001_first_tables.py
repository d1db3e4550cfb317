"""The first tables.

Revision ID: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the tables."""
    op.create_table(
        "invitations",
        sa.Column("token_hash", sa.String(64), primary_key=True),
        sa.Column("population", sa.String(64), nullable=False, index=True),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_table(
        "devices",
        sa.Column("device", sa.String(32), primary_key=True),
        sa.Column("population", sa.String(64), nullable=False, index=True),
        sa.Column("secret_hash", sa.String(64), nullable=False),
        sa.Column("capabilities", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_table(
        "runs",
        sa.Column("run", sa.String(32), primary_key=True),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("population", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("why", sa.String(500), nullable=False),
        sa.Column("settings", sa.JSON, nullable=False),
        sa.Column("model_hash", sa.String(64), nullable=False),
        sa.Column("graph_hash", sa.String(64), nullable=False),
        sa.Column("layout_hash", sa.String(64), nullable=False),
        sa.Column("weight_size", sa.BigInteger, nullable=False),
        sa.Column("statistic_size", sa.BigInteger, nullable=False),
        sa.Column("metrics", sa.JSON, nullable=False),
        sa.Column("initial_weights_hash", sa.String(64), nullable=False),
        sa.Column("weights_hash", sa.String(64), nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("ended_at", sa.Float),
        sa.Index("runs_by_population_and_state", "population", "state"),
    )
    op.create_table(
        "rounds",
        sa.Column("run", sa.String(32), sa.ForeignKey("runs.run"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("state", sa.String(16), nullable=False, index=True),
        sa.Column("why", sa.String(500), nullable=False),
        sa.Column("base_weights_hash", sa.String(64), nullable=False),
        sa.Column("weights_hash", sa.String(64)),
        sa.Column("opened_at", sa.Float, nullable=False),
        sa.Column("started_at", sa.Float),
        sa.Column("ended_at", sa.Float),
        sa.Column("num_examples", sa.BigInteger),
        sa.Column("metric_sums", sa.JSON, nullable=False),
        sa.Column("diagnostics", sa.JSON, nullable=False),
    )
    op.create_table(
        "assignments",
        sa.Column("task_id", sa.String(100), primary_key=True),
        sa.Column("run", sa.String(32), sa.ForeignKey("runs.run"), nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("device", sa.String(32), sa.ForeignKey("devices.device"), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("leased_until", sa.Float, nullable=False),
        sa.Column("ended_at", sa.Float, nullable=False),
        sa.Column("temporary", sa.Boolean, nullable=False),
        sa.Index("assignments_by_round", "run", "round"),
        sa.Index("assignments_by_device_and_state", "device", "state"),
    )
    op.create_table(
        "outcomes",
        sa.Column("task_id", sa.String(100), sa.ForeignKey("assignments.task_id"), primary_key=True),
        sa.Column("run", sa.String(32), sa.ForeignKey("runs.run"), nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False, index=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(32), nullable=False),
        sa.Column("num_examples", sa.BigInteger, nullable=False),
        sa.Column("disposition", sa.String(16), nullable=False),
        sa.Column("trainer", sa.String(200), nullable=False),
        sa.Column("accepted_at", sa.Float, nullable=False),
        sa.Index("outcomes_by_round", "run", "round"),
    )


def downgrade() -> None:
    """Drops the tables."""
    for name in ("outcomes", "assignments", "rounds", "runs", "devices", "invitations"):
        op.drop_table(name)
