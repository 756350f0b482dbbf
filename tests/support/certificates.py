"""A certificate authority made up for one test, and a server certificate it signed."""

import shutil
import subprocess
from pathlib import Path

import pytest

EXTENSIONS = """
[server]
subjectAltName = IP:127.0.0.1, DNS:localhost
extendedKeyUsage = serverAuth
"""


def make_certificates(folder: Path) -> Path:
    """Write private.key and public.crt for 127.0.0.1 into a folder.

    Returns:
        The authority's certificate, PEM, in the folder above: a server must not trust or serve it by chance.
    """
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed; it makes the test's certificates")
    private = folder.parent / "authority"
    private.mkdir()
    (private / "extensions.cnf").write_text(EXTENSIONS)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    _openssl(
        "req", "-x509", *key, "-days", "2", "-subj", "/CN=Test authority",
        "-keyout", private / "ca.key", "-out", private / "ca.crt",
    )  # fmt: skip
    _openssl(
        "req", *key, "-subj", "/CN=127.0.0.1",
        "-keyout", folder / "private.key", "-out", private / "server.csr",
    )  # fmt: skip
    _openssl(
        "x509", "-req", "-in", private / "server.csr", "-days", "2", "-CAcreateserial",
        "-CA", private / "ca.crt", "-CAkey", private / "ca.key",
        "-extfile", private / "extensions.cnf", "-extensions", "server", "-out", folder / "public.crt",
    )  # fmt: skip
    return private / "ca.crt"


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)
