"""Run by Alembic: applies the migrations on the connection that `db.session` gives it."""

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
