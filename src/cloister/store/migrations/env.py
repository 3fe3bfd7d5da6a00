"""Alembic's entry: the connection comes from `cloister.store.service.migrate`; there is no alembic.ini and no second way in."""

from alembic import context

from cloister.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
