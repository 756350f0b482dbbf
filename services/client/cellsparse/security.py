"""TLS of the connection to the orchestrator, and messages for failed handshakes."""

import os
from pathlib import Path

from cellsparse.errors import InvalidArgument
from cellsparse_common.config.tls import ClientTls

CA_VARIABLE = "CELLSPARSE_TLS_CA"
_OWN_VARIABLES = ("CELLSPARSE_TLS_CERT", "CELLSPARSE_TLS_KEY")
# How a peer that speaks something else ends a connection: which of them depends on what it had read when it closed.
_CLOSED = ("socket closed", "connection reset by peer", "broken pipe")


def find_tls(ca: str | None) -> ClientTls | None:
    """Return the certificates: with the given authorities or those in CELLSPARSE_TLS_CA; None: no TLS.

    Raises:
        InvalidArgument: The environment names a certificate without its key, or the other way round.
    """
    chosen = ca or os.environ.get(CA_VARIABLE)
    if not chosen:
        return None
    cert, key = (Path(value) if (value := os.environ.get(name)) else None for name in _OWN_VARIABLES)
    if (cert is None) != (key is None):
        raise InvalidArgument(f"{' and '.join(_OWN_VARIABLES)} must be given together, or neither.")
    name = os.environ.get("CELLSPARSE_TLS_SERVER_NAME", "")
    return ClientTls(ca=chosen, cert=cert, key=key, server_name=name)


def describe_refusal(details: str, address: str, tls: ClientTls | None) -> str:
    """Return a sentence for a connection that failed because of TLS; empty if there was another reason.

    Args:
        details: Details of the failed call from gRPC.
        address: host:port.
        tls: Certificates of the call.
    """
    text = details.lower()
    closed = "failed to connect" in text and any(words in text for words in _CLOSED)
    if tls is None:
        hint = f"; if it speaks TLS, name its authority with --ca or {CA_VARIABLE}"
        return f"The orchestrator at {address} closes the connection{hint}." if closed else ""
    if "certificate_verify_failed" in text or "hostname verification" in text:
        return f"The orchestrator at {address} shows a certificate that is not signed by {tls.ca}, or for another name."
    if "wrong_version_number" in text:
        return f"The orchestrator at {address} does not speak TLS; call it without --ca and {CA_VARIABLE}."
    if closed:
        hint = f"it may require a client certificate: {' and '.join(_OWN_VARIABLES)}"
        return f"The orchestrator at {address} closes the connection; {hint}."
    return ""
