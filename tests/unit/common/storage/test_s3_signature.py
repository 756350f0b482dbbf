"""Signed URLs against Amazon's published example and the `minio` package, which signs no headers but the host's."""

from datetime import UTC, datetime, timedelta

import pytest
from minio import Minio

from cellsparse_common.storage.s3_signature import require_headers

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


def test_amazons_example():
    """API reference of S3, "Authenticating Requests: Using Query Parameters"."""
    signed = (
        "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256"
        "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z"
        "&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature={}"
    )
    found = require_headers(signed.format("other"), "GET", SECRET, {})
    assert found == signed.format("aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404")


@pytest.mark.parametrize("name", ["plain", "a b/ü+%&=~", "x/" + "y" * 200])
@pytest.mark.parametrize("access_key", ["key", "key/with+signs="])
def test_without_headers_it_is_the_signature_of_the_minio_package(name, access_key):
    client = Minio("store.example:9000", access_key=access_key, secret_key=SECRET, region="eu-west-1")
    when = datetime(2026, 11, 30, tzinfo=UTC)
    url = client.get_presigned_url(
        "PUT", "bucket", name, timedelta(hours=1), request_date=when, extra_query_params={"partNumber": "1"}
    )
    base, _, signature = url.rpartition("&X-Amz-Signature=")
    assert require_headers(url, "PUT", SECRET, {}).rpartition("&X-Amz-Signature=")[2] == signature
    other = require_headers(url, "PUT", SECRET, {"X-Amz-Meta-A": "b"})
    assert "X-Amz-SignedHeaders=host%3Bx-amz-meta-a" in other
    assert signature not in other
    with pytest.raises(ValueError, match="not signed"):
        require_headers(base, "PUT", SECRET, {})
