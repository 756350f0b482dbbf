"""Object storage: one protocol, a folder and S3 behind it."""

from cellsparse_common.storage.folder import FolderStore
from cellsparse_common.storage.location import open_store
from cellsparse_common.storage.protocol import ObjectStore
from cellsparse_common.storage.s3 import S3Store

__all__ = ["FolderStore", "ObjectStore", "S3Store", "open_store"]
