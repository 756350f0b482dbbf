"""Where backups are kept."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from cellsparse_common.config.settings import ENV_PREFIX, StoreSettings, load
from cellsparse_common.errors import FailedPrecondition
from cellsparse_common.storage import ObjectStore, open_store

BACKUP_PREFIX = f"{ENV_PREFIX}BACKUP_"
_S3 = ("s3_endpoint", "s3_secure", "s3_region", "s3_access_key", "s3_secret_key", "s3_path_style", "s3_ca_bundle")


class BackupSettings(StoreSettings):
    """The store that holds backups. What is not set of the S3 server is as for the object store."""

    model_config = SettingsConfigDict(env_prefix=BACKUP_PREFIX)

    store_url: str = ""
    """``file:///absolute/folder``, ``s3://bucket`` or ``s3://bucket/prefix``; not the object store itself."""
    keep: int = Field(default=0, ge=0, le=100_000)
    """After a backup so many snapshots stay, the newest; 0: no rule. Without a rule all stay."""
    keep_days: float = Field(default=0.0, ge=0.0, le=36_500.0)
    """After a backup the snapshots of so many days stay; 0: no rule. With both rules a snapshot stays that one of them
    keeps. The newest stays in any case."""


def open_backup(store: StoreSettings, url: str = "") -> ObjectStore:
    """Return the store that holds backups.

    Args:
        store: Settings of the object store.
        url: URL of the backup; empty: as CELLSPARSE_BACKUP_STORE_URL says.

    Raises:
        InvalidArgument: The URL or the settings cannot be understood.
        FailedPrecondition: No URL is given, or that of the object store.
    """
    settings = load(BackupSettings, **({"store_url": url} if url else {}))
    if not settings.store_url:
        raise FailedPrecondition(f"No backup is named: give --to or --from, or set {BACKUP_PREFIX}STORE_URL.")
    if f"{settings.store_url.rstrip('/')}/".startswith(f"{store.store_url.rstrip('/')}/"):
        raise FailedPrecondition(f"The backup {settings.store_url} is in the object store itself; name another place.")
    if not settings.s3_access_key:
        settings = settings.model_copy(
            update={name: getattr(store, name) for name in _S3 if name not in settings.model_fields_set}
        )
    return open_store(settings)
