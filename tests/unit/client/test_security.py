"""Sentences for connections that fail because of TLS."""

import pytest

from cellsparse.security import describe_refusal
from cellsparse_common.config.tls import ClientTls

FAILED = "failed to connect to all addresses; last error: UNAVAILABLE: ipv4:127.0.0.1:1: "


@pytest.mark.parametrize("words", ["Socket closed", "recvmsg:Connection reset by peer", "sendmsg: Broken pipe (32)"])
def test_however_the_peer_closes_the_connection_the_hint_is_the_same(words):
    assert "if it speaks TLS, name its authority" in describe_refusal(FAILED + words, "host:1", None)
    assert "may require a client certificate" in describe_refusal(FAILED + words, "host:1", ClientTls(ca="ca.pem"))


def test_a_port_without_a_server_has_nothing_to_do_with_tls():
    assert describe_refusal(FAILED + "Connection refused", "host:1", None) == ""
