"""Settings from files: in the folder CELLSPARSE_SECRETS_DIR each file is named after a setting and holds its value.

Kubernetes and Docker provide secrets this way. Names are those of the variables in lower case:
`cellsparse_s3_secret_key`. A variable takes precedence over its file. Other files in the folder are ignored.
"""

from pathlib import Path
from typing import Any

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SecretsSettingsSource, SettingsError

VARIABLE = "CELLSPARSE_SECRETS_DIR"
_NAMED = 5


def secret_files(cls: type[BaseSettings], *sources: PydanticBaseSettingsSource) -> list[PydanticBaseSettingsSource]:
    """Return the source that reads the folder; an empty list if no folder is given.

    Args:
        cls: The settings, with a field `secrets_dir`.
        sources: Sources that may name the folder; the first one that does is used.

    Raises:
        SettingsError: The folder is not there or cannot be read, or holds nothing of ours.
    """
    given = next((folder for source in sources if (folder := source().get("secrets_dir"))), None)
    if given is None:
        return []
    _check(Path(given), str(cls.model_config.get("env_prefix", "")).lower())
    return [_Files(cls, secrets_dir=given)]


def _check(folder: Path, prefix: str) -> None:
    try:
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise SettingsError(f"{VARIABLE} is {str(folder)!r}, which cannot be read: {error.strerror}") from None
    if not any(name.lower().startswith(prefix) for name in names):
        found = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
        raise SettingsError(
            f"{VARIABLE} is {str(folder)!r}, which holds no file named after a setting, such as {prefix}s3_secret_key; "
            f"it holds: {found or 'nothing'}"
        )


class _Files(SecretsSettingsSource):
    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        try:
            return super().get_field_value(field, field_name)
        except (OSError, ValueError) as error:
            # The error itself may quote what the file holds.
            why = error.strerror if isinstance(error, OSError) else "it is not text"
            raise _Unreadable(f"{field_name} in the folder {VARIABLE} cannot be read: {why}") from None

    def __call__(self) -> dict[str, Any]:
        try:
            return super().__call__()
        except SettingsError as error:
            raise (error.__cause__ if isinstance(error.__cause__, _Unreadable) else error) from None


class _Unreadable(SettingsError):
    pass
