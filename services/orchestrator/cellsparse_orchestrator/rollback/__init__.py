"""Bring database and store back to an earlier release, so that it runs again."""
