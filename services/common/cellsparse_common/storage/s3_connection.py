"""The connection to an S3 server: one client, shared by all threads of a process."""

import ssl
from dataclasses import dataclass

import urllib3
from minio import Minio
from minio.credentials import Credentials, Provider

from cellsparse_common.config.settings import StoreSettings
from cellsparse_common.errors import InvalidArgument
from cellsparse_common.storage.s3_credentials import CredentialsFile

CONNECT_SECONDS = 2.0
READ_SECONDS = 30.0
CONNECTIONS = 32

# A call to an unreachable server must fail within seconds, so connecting is tried twice. A busy one (503) has longer.
# POST is tried again as well (`allowed_methods=None`): it begins and completes an upload in parts, and both may be done
# twice, as readers see nothing of an upload that was begun and left (see `S3Store.put` for one that was completed).
RETRIES = urllib3.Retry(
    total=4,
    connect=1,
    read=1,
    other=0,
    status=4,
    backoff_factor=0.2,
    backoff_max=2,
    allowed_methods=None,
    status_forcelist=(500, 502, 503, 504),
    raise_on_status=False,
)


@dataclass(frozen=True, kw_only=True)
class S3Connection:
    """A client and the server's name for messages."""

    client: Minio
    endpoint: str
    restricted: bool = False
    """Whether its credentials may list a part of the bucket only: servers may then hide that an object is missing."""


class _FromFile(Provider):  # type: ignore[misc]
    """Credentials for every request, from a file that may be replaced."""

    def __init__(self, file: CredentialsFile) -> None:
        self._file = file

    def retrieve(self) -> Credentials:
        found = self._file.current()
        return Credentials(found.access_key, found.secret_key, found.session_token)


def connect(settings: StoreSettings) -> S3Connection:
    """Create a client. Nothing is sent yet.

    Raises:
        InvalidArgument: The endpoint is not host:port, or the CA bundle cannot be read.
    """
    file = settings.s3_credentials_file
    secret = settings.s3_secret_key.get_secret_value()
    if "@" in settings.s3_endpoint:  # what stands before it may be a password: not quoted
        raise InvalidArgument(
            "s3_endpoint must not hold a user or password; allowed: host or host:port, without a scheme.", "s3_endpoint"
        )
    try:
        if any(character.isspace() for character in settings.s3_endpoint):
            raise ValueError("a space in it")
        client = Minio(
            settings.s3_endpoint,
            access_key=None if file else settings.s3_access_key or None,
            secret_key=None if file else secret or None,
            credentials=_FromFile(CredentialsFile(file)) if file else None,
            secure=settings.s3_secure,
            region=settings.s3_region,
            http_client=http_client(settings),
        )
    except ValueError as error:
        raise InvalidArgument(
            f"s3_endpoint is {settings.s3_endpoint!r} ({error}); allowed: host or host:port, without a scheme.",
            "s3_endpoint",
        ) from error
    if settings.s3_path_style:
        client.disable_virtual_style_endpoint()
    else:
        client.enable_virtual_style_endpoint()
    return S3Connection(client=client, endpoint=settings.s3_endpoint, restricted=file is not None)


def http_client(settings: StoreSettings) -> urllib3.PoolManager:
    """Return connections to the server, with its authorities, time limits and retries.

    Raises:
        InvalidArgument: The CA bundle cannot be read.
    """
    bundle = settings.s3_ca_bundle
    try:
        trust = ssl.create_default_context(cafile=bundle)
    except OSError as error:  # ssl.SSLError, for a file that holds no certificate, is one too
        raise InvalidArgument(f"s3_ca_bundle {bundle} cannot be used: {error}.", "s3_ca_bundle") from error
    return urllib3.PoolManager(
        maxsize=CONNECTIONS,
        timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
        retries=RETRIES,
        ssl_context=trust,
    )
