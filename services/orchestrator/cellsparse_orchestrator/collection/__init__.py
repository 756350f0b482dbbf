"""The collection: removes for good what was deleted, and what nothing refers to."""
