import pytest

from cellsparse_common.config.shown import has_userinfo, shown_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://host/a/enc.onnx", "https://host/a/enc.onnx"),
        ("https://host:8443/a@b/enc.onnx", "https://host:8443/a@b/enc.onnx"),
        ("https://[::1]:8443/a@b", "https://[::1]:8443/a@b"),
        ("https://lab:hunter2@host/enc.onnx", "https://host/enc.onnx"),
        ("https://lab:hun@ter2@host/enc.onnx", "https://host/enc.onnx"),
        ("https://lab:hun/ter2@host/enc.onnx", "https://host/enc.onnx"),
        ("https://host/enc.onnx?X-Amz-Signature=hunter2", "https://host/enc.onnx"),
        ("https://host/enc.onnx#hunter2", "https://host/enc.onnx"),
        ("folder/enc@2.onnx", "folder/enc@2.onnx"),
    ],
)
def test_no_secret_of_a_url_is_shown(url, shown):
    assert shown_url(url) == shown
    assert has_userinfo(url) == ("@" in url and "@" not in shown)
