"""Secrets of signal transmitters, and the events that were taken"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "transmitter_secrets",
        sa.Column("transmitter", sa.String(length=16), nullable=False),
        sa.Column("secret_hash", sa.String(length=64), nullable=False),
        sa.Column("changed_at", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("transmitter"),
    )
    op.create_table(
        "seen_events",
        sa.Column("transmitter", sa.String(length=16), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("issued_at", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("transmitter", "id"),
    )
