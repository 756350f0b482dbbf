"""Backup and restore of database and store."""
