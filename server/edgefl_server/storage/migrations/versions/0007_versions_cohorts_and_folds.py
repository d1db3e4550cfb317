"""The first tables in which versions, cohorts and folds are apart; those of before are refused, see `database`.

Revision ID: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the tables."""
    op.create_table(
        "folder",
        sa.Column("row", sa.Integer, primary_key=True),
        sa.Column("folder", sa.String(32), nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("clock", sa.Float, nullable=False),
        sa.Column("date", sa.Float, nullable=False),
        sa.Column("boot", sa.String(64), nullable=False),
        sa.Column("boottime", sa.Float, nullable=False),
    )
    op.create_table(
        "invitations",
        sa.Column("token_hash", sa.String(64), primary_key=True),
        sa.Column("population", sa.String(64), nullable=False, index=True),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_table(
        "populations",
        sa.Column("population", sa.String(64), primary_key=True),
        sa.Column("devices", sa.Integer, nullable=False),
    )
    op.create_table(
        "devices",
        sa.Column("device", sa.String(32), primary_key=True),
        sa.Column("population", sa.String(64), nullable=False, index=True),
        sa.Column("secret_hash", sa.String(64), nullable=False),
        sa.Column("capabilities", sa.JSON, nullable=False),
        sa.Column("public_key", sa.String(684)),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("doubled_at", sa.Float),
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
        sa.Column("limits", sa.JSON, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("cohort", sa.Integer, nullable=False),
        sa.Column("fold", sa.Integer, nullable=False),
        sa.Column("accepted", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("created_clock", sa.Float, nullable=False),
        sa.Column("ended_at", sa.Float),
        sa.Index("runs_by_population_and_state", "population", "state"),
    )
    op.create_table(
        "versions",
        sa.Column("run", sa.String(32), sa.ForeignKey("runs.run"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("fold", sa.Integer, nullable=False),
        sa.Column("weights_hash", sa.String(64), nullable=False),
        sa.Column("slots", sa.JSON, nullable=False),
    )
    op.create_table(
        "cohorts",
        sa.Column("run", sa.String(32), sa.ForeignKey("runs.run"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("opened_clock", sa.Float, nullable=False),
        sa.Column("started_clock", sa.Float),
        sa.Column("open", sa.Integer, nullable=False),
        sa.Column("done", sa.Integer, nullable=False),
        sa.Column("failed_devices", sa.Integer, nullable=False),
        sa.Column("failed_attempts", sa.Integer, nullable=False),
    )
    op.create_table(
        "folds",
        sa.Column("run", sa.String(32), sa.ForeignKey("runs.run"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False, index=True),
        sa.Column("why", sa.String(500), nullable=False),
        sa.Column("enrolled", sa.Integer, nullable=False),
        sa.Column("opened_at", sa.Float, nullable=False),
        sa.Column("opened_clock", sa.Float, nullable=False),
        sa.Column("ended_clock", sa.Float),
        sa.Column("num_examples", sa.BigInteger),
        sa.Column("metric_sums", sa.JSON, nullable=False),
        sa.Column("diagnostics", sa.JSON, nullable=False),
        sa.Column("pruned", sa.JSON, nullable=False),
    )
    op.create_table(
        "assignments",
        sa.Column("task_id", sa.String(100), primary_key=True),
        sa.Column("run", sa.String(32), sa.ForeignKey("runs.run"), nullable=False),
        sa.Column("cohort", sa.Integer, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("fold", sa.Integer, nullable=False),
        sa.Column("device", sa.String(32), sa.ForeignKey("devices.device"), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("turn", sa.Integer, nullable=False),
        sa.Column("continues", sa.String(100), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("assigned_clock", sa.Float, nullable=False),
        sa.Column("ends_clock", sa.Float, nullable=False),
        sa.Column("leased_until_clock", sa.Float, nullable=False),
        sa.Column("leased_to_the_end", sa.Boolean, nullable=False),
        sa.Column("ended_clock", sa.Float, nullable=False),
        sa.Column("temporary", sa.Boolean, nullable=False),
        sa.Column("failed_before", sa.Boolean, nullable=False),
        sa.Index("assignments_by_device", "device", "run", "cohort", "attempt"),
        sa.Index("assignments_by_lease", "run", "cohort", "state", "leased_to_the_end", "leased_until_clock", "device"),
        sa.Index("assignments_by_fold", "run", "fold"),
        sa.Index("assignments_by_device_and_state", "device", "state", "run"),
    )
    op.create_table(
        "outcomes",
        sa.Column("task_id", sa.String(100), sa.ForeignKey("assignments.task_id"), primary_key=True),
        sa.Column("run", sa.String(32), sa.ForeignKey("runs.run"), nullable=False),
        sa.Column("fold", sa.Integer, nullable=False),
        sa.Column("device", sa.String(32), sa.ForeignKey("devices.device"), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False, index=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(32), nullable=False),
        sa.Column("num_examples", sa.BigInteger, nullable=False),
        sa.Column("disposition", sa.String(16), nullable=False),
        sa.Column("trainer", sa.String(200), nullable=False),
        sa.Column("accepted", sa.BigInteger, nullable=False),
        sa.Column("accepted_at", sa.Float, nullable=False),
        sa.Index("outcomes_by_device", "device", "run", "disposition", "accepted"),
        sa.Index("outcomes_by_fold", "run", "fold"),
    )


def downgrade() -> None:
    """Drops the tables."""
    for name in (
        "outcomes",
        "assignments",
        "folds",
        "cohorts",
        "versions",
        "runs",
        "devices",
        "populations",
        "invitations",
        "folder",
    ):
        op.drop_table(name)
