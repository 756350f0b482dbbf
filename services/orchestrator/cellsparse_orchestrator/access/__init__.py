"""Tokens, the check of every call, and the record of changes."""
