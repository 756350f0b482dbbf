"""A certificate authority made up for one test, and certificates that it signs."""

import shutil
import subprocess
from pathlib import Path

import pytest
from support.limits import PATIENCE

_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


class Authority:
    """Signs certificates for two days.

    Attributes:
        certificate: Its own, PEM.
    """

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("openssl is not installed; it makes the test's certificates")
        folder.mkdir(parents=True)
        self._folder = folder
        self.certificate = folder / "ca.crt"
        _openssl(
            "req", "-x509", *_KEY, "-days", "2", "-subj", "/CN=Test authority",
            "-keyout", folder / "ca.key", "-out", self.certificate,
        )  # fmt: skip

    def sign(self, certificate: Path, key: Path, names: str = "IP:127.0.0.1, DNS:localhost", days: int = 2) -> None:
        """Write a new certificate, for servers and clients alike, and its key.

        Args:
            certificate: File for the certificate.
            key: File for its private key.
            names: What it is for, as OpenSSL's subjectAltName.
            days: How long it is valid from now on; below 0: it has ended.
        """
        extensions, request = self._folder / "extensions.cnf", self._folder / "request.csr"
        extensions.write_text(f"[it]\nsubjectAltName = {names}\nextendedKeyUsage = serverAuth, clientAuth\n")
        _openssl("req", *_KEY, "-subj", "/CN=test", "-keyout", key, "-out", request)
        _openssl(
            "x509", "-req", "-in", request, "-days", str(days), "-CAcreateserial",
            "-CA", self.certificate, "-CAkey", self._folder / "ca.key",
            "-extfile", extensions, "-extensions", "it", "-out", certificate,
        )  # fmt: skip


def make_certificates(folder: Path) -> Path:
    """Write private.key and public.crt for 127.0.0.1 into a folder.

    Returns:
        The authority's certificate, PEM, in the folder above: a server must not trust or serve it by chance.
    """
    authority = Authority(folder.parent / "authority")
    authority.sign(folder / "public.crt", folder / "private.key")
    return authority.certificate


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=PATIENCE)
