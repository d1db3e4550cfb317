"""Runs migrations on the connection that `Database` hands over; Alembic calls it."""

from alembic import context

from edgefl_server.storage.tables import Table

context.configure(connection=context.config.attributes["connection"], target_metadata=Table.metadata)
with context.begin_transaction():
    context.run_migrations()
