"""Which service a caller is, as its certificate says."""

from collections.abc import Sequence

import grpc

from cellsparse_common.errors import PermissionDenied, Unauthenticated

_NAMES = "x509_subject_alternative_name"


def check_certificate(context: grpc.ServicerContext, allowed: Sequence[str]) -> None:
    """Check that the caller's certificate, which TLS has verified, is one of a service that may call.

    Args:
        context: The call.
        allowed: DNS names and URIs; the certificate must hold one of them among its subject alternative names. They are
            compared as they stand, so that a wildcard in a certificate stands for nothing.

    Raises:
        Unauthenticated: The caller shows no certificate.
        PermissionDenied: It is for other names.
    """
    shown = context.auth_context()
    wanted = " or ".join(allowed)
    if "x509_pem_cert" not in shown:
        raise Unauthenticated(f"The caller shows no certificate; this service answers one for {wanted}.")
    names = [name.decode("utf-8", "replace") for name in shown.get(_NAMES, ())]
    if not set(names) & set(allowed):
        found = ", ".join(names) or "no name"
        raise PermissionDenied(f"The caller's certificate is for {found}; this service answers one for {wanted}.")
