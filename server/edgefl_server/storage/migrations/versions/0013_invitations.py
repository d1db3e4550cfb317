"""Invitations that end: by a date, after so many devices, or when they are revoked.

Revision ID: 0013
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the columns; invitations of before stay good for ever and for any number of devices."""
    op.add_column("invitations", sa.Column("label", sa.String(200), nullable=False, server_default=""))
    op.add_column("invitations", sa.Column("made_by", sa.String(64), nullable=False, server_default=""))
    op.add_column("invitations", sa.Column("uses", sa.Integer))
    op.add_column("invitations", sa.Column("used", sa.Integer, nullable=False, server_default="0"))
    op.add_column("invitations", sa.Column("expires_at", sa.Float))
    op.add_column("invitations", sa.Column("revoked_at", sa.Float))


def downgrade() -> None:
    """Drops the columns, and the invitations that an older server would take for good ones."""
    op.execute("DELETE FROM invitations WHERE revoked_at IS NOT NULL OR expires_at IS NOT NULL OR uses IS NOT NULL")
    for column in ("revoked_at", "expires_at", "used", "uses", "made_by", "label"):
        op.drop_column("invitations", column)
