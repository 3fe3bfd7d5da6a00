"""Programs that prove themselves with tokens, and delegations to them"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "presented_tokens",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("key_thumbprint", sa.String(length=43), nullable=False),
        sa.Column("expires_at", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("presented_tokens_by_expiry", "presented_tokens", ["expires_at"], unique=False)
    op.create_table(
        "delegations",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("secret_hash", sa.String(length=64), nullable=False),
        sa.Column("user", sa.String(length=16), nullable=False),
        sa.Column("workload", sa.String(length=16), nullable=False),
        sa.Column("agent", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.Integer(), nullable=False),
        sa.Column("revoked_at", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("delegations_by_user", "delegations", ["user"], unique=False)
    with op.batch_alter_table("agents", schema=None) as batch_op:
        for name, length in (("vouched_by", 16), ("vouched_for_by", 16), ("vouched_mark", 32), ("delegation", 16)):
            batch_op.add_column(sa.Column(name, sa.String(length=length), nullable=True))
        batch_op.add_column(sa.Column("vouched_until", sa.Integer(), nullable=True))
