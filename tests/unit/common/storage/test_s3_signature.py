"""Signed URLs against Amazon's published examples and the `minio` package, which signs no headers but the host's."""

from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
from minio import Minio
from minio.credentials import Credentials

from cellsparse_common.storage.s3_signature import UrlSigner, signed

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
WHEN = datetime(2026, 11, 30, 23, 59, 1, tzinfo=UTC)


def test_amazons_example():
    """API reference of S3, "Authenticating Requests: Using Query Parameters"."""
    found = signed(
        urlsplit("https://examplebucket.s3.amazonaws.com/test.txt"),
        "GET",
        Credentials("AKIAIOSFODNN7EXAMPLE", SECRET),
        region="us-east-1",
        when=datetime(2013, 5, 24, tzinfo=UTC),
        seconds=86400,
    )
    assert found == (
        "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256"
        "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z"
        "&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
        "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )


@pytest.mark.parametrize("name", ["plain", "a b/ü+%&=~", "x/" + "y" * 200])
@pytest.mark.parametrize("access_key", ["key", "key/with+signs="])
@pytest.mark.parametrize("virtual", [False, True])
def test_without_headers_it_is_the_signature_of_the_minio_package(name, access_key, virtual):
    client = Minio("store.example:9000", access_key=access_key, secret_key=SECRET, region="eu-west-1")
    if virtual:
        client.enable_virtual_style_endpoint()
    expected = client.get_presigned_url("PUT", "bucket", name, timedelta(hours=1), request_date=WHEN)
    plain = urlsplit(expected)._replace(query="")
    credentials = Credentials(access_key, SECRET)
    found = signed(plain, "PUT", credentials, region="eu-west-1", when=WHEN, seconds=3600)
    assert found == expected
    other = signed(plain, "PUT", credentials, region="eu-west-1", when=WHEN, seconds=3600, headers={"X-Amz-A": "b"})
    assert "X-Amz-SignedHeaders=host%3Bx-amz-a" in other
    assert found.rpartition("=")[2] not in other
    mine = urlsplit(UrlSigner(client, "bucket").url("PUT", name, 3600))
    assert mine._replace(query="") == plain


def test_temporary_credentials_show_their_token():
    client = Minio("store.example", access_key="key", secret_key=SECRET, session_token="to/ken=", region="eu-west-1")
    ours = urlsplit(UrlSigner(client, "bucket").url("PUT", "name", 60))
    theirs = urlsplit(client.get_presigned_url("PUT", "bucket", "name", timedelta(seconds=60)))
    assert "X-Amz-Security-Token=to%2Fken%3D" in ours.query
    assert sorted(part.partition("=")[0] for part in ours.query.split("&")) == sorted(
        part.partition("=")[0] for part in theirs.query.split("&")
    )


def test_the_key_of_a_day_is_not_used_on_the_next():
    credentials, plain = Credentials("key", SECRET), urlsplit("https://store.example/bucket/name")
    client = Minio("store.example", access_key="key", secret_key=SECRET, region="eu-west-1")
    client.disable_virtual_style_endpoint()
    for days in (0, 1, 0):
        when = WHEN + timedelta(days=days)
        found = signed(plain, "GET", credentials, region="eu-west-1", when=when, seconds=60)
        assert found == client.get_presigned_url("GET", "bucket", "name", timedelta(seconds=60), request_date=when)
