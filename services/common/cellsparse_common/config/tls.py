"""TLS of gRPC servers and channels, from PEM files that may be replaced at any time (cert-manager does so).

A server reads its files again for every new connection, a client for every new channel. Open connections are not
affected. gRPC for Python could do this if it watched certificate files; it does not.
"""

import ipaddress
import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from cellsparse_common.errors import InvalidArgument

_LOG = logging.getLogger(__name__)
_MOST_BYTES = 2**24
SYSTEM = "system"
"""Instead of a file: the public authorities that gRPC trusts."""


@dataclass(frozen=True, kw_only=True)
class ServerTls:
    """Certificates of a server."""

    cert: Path
    """Its certificate, followed by intermediate ones."""
    key: Path
    """The certificate's private key, not encrypted."""
    client_ca: Path | None = None
    """Authorities. Only clients with a certificate signed by one of them may connect; None: all may."""


@dataclass(frozen=True, kw_only=True)
class ClientTls:
    """Certificates of a client."""

    ca: str
    """File of the authorities whose certificates are trusted, or `SYSTEM`."""
    cert: Path | None = None
    """The client's own certificate, for servers that require one; with `key`."""
    key: Path | None = None
    server_name: str = ""
    """The name expected in the certificate of a server that is called by its IP address; empty: the address itself."""


def server_credentials(tls: ServerTls) -> grpc.ServerCredentials:
    """Return credentials that are read again when their files change.

    Raises:
        InvalidArgument: A file is missing, or certificate and key do not belong together.
    """
    certificates = _Certificates(tls)
    return grpc.dynamic_ssl_server_credentials(
        certificates.current, certificates.fetch, require_client_authentication=tls.client_ca is not None
    )


def channel_credentials(tls: ClientTls) -> grpc.ChannelCredentials:
    """Return a channel's credentials.

    Raises:
        InvalidArgument: A file is missing or cannot be read.
    """
    roots = None if tls.ca == SYSTEM else _read(Path(tls.ca), "authorities")
    if tls.cert is None or tls.key is None:
        return grpc.ssl_channel_credentials(roots)
    return grpc.ssl_channel_credentials(
        roots, private_key=_read(tls.key, "key"), certificate_chain=_read(tls.cert, "certificate")
    )


def files_changed(tls: ClientTls | None) -> tuple[int, ...]:
    """Return when the files of a client's TLS last changed, nanoseconds; 0 for one that is not there now."""
    if tls is None:
        return ()
    files = [None if tls.ca == SYSTEM else Path(tls.ca), tls.cert, tls.key]
    return tuple(_changed(file) for file in files if file is not None)


def expected_name(tls: ClientTls, address: str) -> str:
    """Return the name expected in the certificate of the server at host:port; empty for the host itself."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return ""
    return tls.server_name


class _Certificates:
    """The last valid content of the files."""

    def __init__(self, tls: ServerTls) -> None:
        self._tls = tls
        self._files = self._load()
        self.current = _configuration(*self._files)

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Return new credentials, None if nothing changed. Called by gRPC for every new connection."""
        try:
            found = self._load()
        except InvalidArgument as error:
            # Files are replaced one after the other, so for a moment certificate and key do not match.
            _LOG.warning("the new certificate cannot be used, the previous one stays in use: %s", error.message)
            return None
        if found == self._files:
            return None
        self._files = found
        _LOG.info("the certificate %s was changed and is used from now on", self._tls.cert)
        return _configuration(*found)

    def _load(self) -> tuple[bytes, bytes, bytes | None]:
        cert, key = _read(self._tls.cert, "certificate"), _read(self._tls.key, "key")
        roots = None if self._tls.client_ca is None else _read(self._tls.client_ca, "authorities of clients")
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._tls.cert, self._tls.key, password=lambda: "")
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise InvalidArgument(
                f"The certificate {self._tls.cert} and the key {self._tls.key} cannot be used together: {reason}."
            ) from None
        return cert, key, roots


def _configuration(cert: bytes, key: bytes, roots: bytes | None) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(key, cert)], root_certificates=roots)


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _read(path: Path, what: str) -> bytes:
    try:
        if path.is_fifo():
            raise InvalidArgument(f"The file of the {what}, {path}, is a pipe, which may block for ever.")
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES)  # a device may have no end
    except OSError as error:
        raise InvalidArgument(f"The file of the {what}, {path}, cannot be read: {error.strerror}.") from None
    if b"-----BEGIN " not in content:
        raise InvalidArgument(f"The file of the {what}, {path}, is not in PEM format.")
    return content
