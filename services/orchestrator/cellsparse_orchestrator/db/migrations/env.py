"""Alembic environment: apply the migrations on the connection that `db.migrate` passes on."""

from alembic import context

from cellsparse_orchestrator.db.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
