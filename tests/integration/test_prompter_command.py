"""`cellsparse prompter` against a real orchestrator, with files from disk, from an HTTPS server and from S3."""

import functools
import json
import ssl
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from support.certificates import make_certificates
from support.minio import running_minio, store_environment
from support.orchestrator import Orchestrator
from support.tiny_sam import decoder, encoder, sha256

from cellsparse.cli.app import run
from cellsparse_common.storage import open_store

PAIR = (encoder(prepares=True), decoder())
HASHES = ",".join(map(sha256, PAIR))


@pytest.fixture(scope="module")
def orchestrator(tmp_path_factory):
    with Orchestrator(tmp_path_factory.mktemp("home"), CELLSPARSE_LAUNCHER="static") as running:
        yield running


@pytest.fixture
def folder(tmp_path, orchestrator, monkeypatch):
    """A folder with both files and one of PyTorch's; the commands speak to the orchestrator."""
    monkeypatch.setenv("CELLSPARSE_ADDRESS", orchestrator.address)
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "encoder.onnx").write_bytes(PAIR[0])
    (folder / "decoder.onnx").write_bytes(PAIR[1])
    (folder / "sam_vit_b.pth").write_bytes(b"PK\x03\x04")
    return folder


def add(name, base, *more, encoder="encoder.onnx"):
    files = ["--encoder", f"{base}/{encoder}", "--decoder", f"{base}/decoder.onnx"]
    return run(["prompter", "add", name, *files, "--licence", "MIT", *more])


def test_files_are_added_listed_and_removed(folder, capsys):
    assert add("disk", folder) == 0
    assert "MIT" in capsys.readouterr().out
    assert add("url", folder.as_uri(), "--sha256", HASHES) == 0
    capsys.readouterr()
    assert run(["prompter", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(each["name"], each["encoder"]["sha256"]) for each in listed] == [
        (name, sha256(PAIR[0])) for name in ("url", "disk")
    ]
    for name in ("disk", "url"):
        assert run(["prompter", "remove", name]) == 0
    assert run(["prompter", "remove", "disk"]) != 0
    assert "no prompter 'disk'" in capsys.readouterr().err.replace("\n", " ")


def test_refusals_are_sentences(folder, capsys):
    for said, base, more in (
        ("is another file, or broken", folder, {"more": ["--sha256", f"{'0' * 64},{'0' * 64}"]}),
        ("with a comma between", folder, {"more": ["--sha256", "abc"]}),
        ("samexporter", folder, {"encoder": "sam_vit_b.pth"}),
        ("cannot be read", folder, {"encoder": "none.onnx"}),
        ("allowed: a path, file:, https: and s3:", "http://127.0.0.1:9", {}),
        ("need their SHA-256", "https://127.0.0.1:9", {}),
        ("cannot be fetched", "https://127.0.0.1:9", {"more": ["--sha256", HASHES]}),
    ):
        assert add("sam", base, *more.pop("more", ()), **more) != 0
        assert said in " ".join(capsys.readouterr().err.split())


class Site(SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/away/"):
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:9/encoder.onnx")
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, *_): ...


def test_files_come_from_https_and_nowhere_else(folder, tmp_path, monkeypatch, capsys):
    certificates = tmp_path / "tls" / "certs"
    certificates.mkdir(parents=True)
    authority = make_certificates(certificates)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "public.crt", certificates / "private.key")
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Site, directory=folder)) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"https://127.0.0.1:{server.server_address[1]}"
        assert add("web", base, "--sha256", HASHES) != 0
        assert "CERTIFICATE_VERIFY_FAILED" in capsys.readouterr().err.replace("\n", "")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        for said, place in (("404", f"{base}/none"), ("which is not https", f"{base}/away")):
            assert add("web", place, "--sha256", HASHES) != 0
            assert said in " ".join(capsys.readouterr().err.split())
        assert add("web", base, "--sha256", HASHES) == 0
        server.shutdown()
    assert run(["prompter", "remove", "web"]) == 0


def test_s3_holds_what_is_added_and_what_it_is_added_from(folder, tmp_path, monkeypatch):
    (tmp_path / "minio").mkdir()
    with running_minio(tmp_path / "minio") as minio:
        minio.client().make_bucket("bucket")
        store = open_store(minio.settings("s3://bucket/given"))
        for name in ("encoder.onnx", "decoder.onnx"):
            store.put(name, folder / name)
        place = store_environment(minio.settings("s3://bucket/kept"))
        for name, value in place.items():
            monkeypatch.setenv(name, value)
        assert add("s3", "s3://bucket/given", "--sha256", HASHES) == 0
        assert run(["prompter", "remove", "s3"]) == 0
        with Orchestrator(tmp_path / "other", CELLSPARSE_LAUNCHER="static", **place) as s3:
            monkeypatch.setenv("CELLSPARSE_ADDRESS", s3.address)
            assert add("kept", folder) == 0
            kept = open_store(minio.settings("s3://bucket/kept"))
            assert len(list(kept.list("prompters/"))) == 2
            assert run(["prompter", "remove", "kept"]) == 0
            assert list(kept.list("prompters/")) == []
