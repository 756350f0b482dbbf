"""What an earlier layout cannot hold: counted before the database goes back to it, and said in a sentence."""

from sqlalchemy import Connection, text

_LOSSES: dict[str, tuple[tuple[str, str], ...]] = {
    "0009": (("SELECT COUNT(*) FROM uploads WHERE NOT complete", "unfinished uploads ({}), which begin anew"),),
    "0008": (
        (
            " UNION ALL ".join(
                f"SELECT id FROM {table} WHERE deleted_at IS NOT NULL"  # noqa: S608 - names of our own tables
                for table in ("datasets", "runs", "models", "studies", "projects")
            ),
            "that things are deleted ({}), which are there again",
        ),
        ("SELECT COUNT(*) FROM project_limits", "quotas of projects ({})"),
    ),
    "0007": (
        ("SELECT COUNT(*) FROM tokens WHERE revoked_at IS NULL", "tokens ({}): all who reach the server may do all"),
        ("SELECT COUNT(*) FROM changes", "the record of changes ({})"),
        (
            " UNION ALL ".join(
                f"SELECT id FROM {table} WHERE project_id IS NOT NULL"  # noqa: S608 - names of our own tables
                for table in ("datasets", "runs", "models", "studies")
            ),
            "which project datasets, runs, models and studies belong to ({})",
        ),
    ),
    "0005": (("SELECT COUNT(*) FROM project_images WHERE channel_names <> '[]'", "names of channels ({})"),),
    "0004": (
        ("SELECT COUNT(*) FROM projects", "projects with their images and annotations ({})"),
        ("SELECT COUNT(*) FROM prompters", "prompters ({})"),
        ("SELECT COUNT(*) FROM aliases", "names that clients gave to models ({})"),
    ),
    "0003": (("SELECT COUNT(*) FROM studies", "studies ({}), whose runs stay"),),
    "0002": (("SELECT COUNT(*) FROM models WHERE id NOT IN (SELECT id FROM runs)", "imported models ({})"),),
}
"""By the layout that brought it: a query, and what its number means."""


def losses(connection: Connection, layout: str) -> list[str]:
    """Return what would be lost on the way to an earlier layout, a phrase each; empty: nothing.

    Args:
        connection: The database, in the newest layout.
        layout: Where it would go.
    """
    found = []
    for query, phrase in (each for made, pairs in _LOSSES.items() if made > layout for each in pairs):
        counted = query if "COUNT" in query else f"SELECT COUNT(*) FROM ({query}) AS found"  # noqa: S608 - as above
        if number := connection.scalar(text(counted)):
            found.append(phrase.format(number))
    return found
