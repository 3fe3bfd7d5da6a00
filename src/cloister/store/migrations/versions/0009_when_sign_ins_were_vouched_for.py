"""When a provider vouched for a sign-in: all that is known of its time where the provider sends no `auth_time`"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("agents", sa.Column("sign_in_vouched_at", sa.Integer(), nullable=True))
