"""The object store as an attempt reaches it: with credentials of its own, if the orchestrator gave it some.

They lie in the attempt's folder, where the training processes read them again when they are replaced. A server without
keys of its own trains with them alone.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from cellsparse_common.config.settings import ENV_PREFIX, StoreSettings
from cellsparse_common.storage import ObjectStore, open_store
from cellsparse_common.storage.s3_credentials import S3Credentials
from cellsparse_proto.v1 import trainer_pb2

FILE = "store-credentials.json"
_OWN = ("s3_access_key", "s3_secret_key", "secrets_dir")
"""Settings by which the server reaches the store, and that are not for training processes."""


class AttemptStores:
    """Opens the store for attempts.

    Args:
        store: The server's own.
        settings: How the store is reached; None: every attempt uses `store`.
    """

    def __init__(self, store: ObjectStore, settings: StoreSettings | None = None) -> None:
        self._store = store
        self._settings = settings

    def keep(self, folder: Path, given: trainer_pb2.StoreCredentials) -> None:
        """Keep credentials for the attempt of a folder, in place of those before.

        Raises:
            StorageError: They cannot be written.
        """
        S3Credentials(
            access_key=given.access_key,
            secret_key=given.secret_key,
            session_token=given.session_token,
            expire_time=given.expire_time.ToNanoseconds() / 1e9,
        ).write(folder / FILE)

    def forget(self, folder: Path) -> None:
        """Remove the credentials of an attempt that has ended."""
        with contextlib.suppress(OSError):
            (folder / FILE).unlink(missing_ok=True)

    def open(self, folder: Path) -> ObjectStore:
        """Return the store as the attempt of a folder reaches it."""
        settings = self._of(folder)
        return self._store if settings is None else open_store(settings)

    def environment(self, folder: Path, inherited: Mapping[str, str]) -> dict[str, str]:
        """Return the variables of an attempt's processes: without the server's keys where it has credentials."""
        settings = self._of(folder)
        if settings is None:
            return dict(inherited)
        kept = {name: value for name, value in inherited.items() if name.removeprefix(ENV_PREFIX).lower() not in _OWN}
        told = {
            f"{ENV_PREFIX}{name}".upper(): str(value)
            for name in StoreSettings.model_fields
            if name not in _OWN and (value := getattr(settings, name)) is not None
        }
        return {**kept, **told}

    def _of(self, folder: Path) -> StoreSettings | None:
        file = folder / FILE
        if self._settings is None or not file.exists():
            return None
        changes = {"s3_credentials_file": file.absolute(), "s3_access_key": "", "s3_secret_key": SecretStr("")}
        return self._settings.model_copy(update=changes)
