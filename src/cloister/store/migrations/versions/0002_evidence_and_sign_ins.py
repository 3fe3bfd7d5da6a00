"""Evidence, and how an agent's principal signed in"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "evidence",
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("subject", sa.String(length=16), nullable=False),
        sa.Column("source", sa.String(length=63), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("observed_at", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("kind", "subject", "source", "name"),
    )
    with op.batch_alter_table("agents", schema=None) as batch_op:
        batch_op.add_column(sa.Column("actor", sa.String(length=16), nullable=True))
        batch_op.add_column(sa.Column("sign_in_strength", sa.String(length=16), nullable=False, server_default="password"))
        batch_op.add_column(sa.Column("sign_in_issuer", sa.String(length=63), nullable=False, server_default="local"))
        batch_op.add_column(sa.Column("sign_in_session", sa.String(length=256), nullable=True))
