"""Object storage: one protocol, a folder and S3 behind it.

The S3 client is loaded when an `s3://` URL is opened, not before.
"""

from cellsparse_common.storage.folder import FolderStore
from cellsparse_common.storage.location import open_checked_store, open_store, open_uploads
from cellsparse_common.storage.protocol import DirectUploads, ObjectStore

__all__ = ["DirectUploads", "FolderStore", "ObjectStore", "open_checked_store", "open_store", "open_uploads"]
