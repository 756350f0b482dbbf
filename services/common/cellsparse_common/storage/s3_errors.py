"""Error messages for S3 servers and the connection to them."""

from minio.error import S3Error
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    MaxRetryError,
    NewConnectionError,
    ReadTimeoutError,
    SSLError,
)

DENIED = frozenset({"AccessDenied", "AllAccessDisabled", "InvalidAccessKeyId", "SignatureDoesNotMatch"})
_LONGEST = 300


def explain(error: Exception, *, action: str, endpoint: str, bucket: str) -> str:
    """Return a sentence with the problem and, if known, the remedy.

    Args:
        error: From the client or the HTTP layer below it.
        action: What was tried, after "Cannot".
        endpoint: The server's host:port.
        bucket: The bucket's name.
    """
    if isinstance(error, S3Error) and error.code == "NoSuchBucket":
        return no_bucket(bucket, endpoint)
    if isinstance(error, S3Error) and error.code in DENIED:
        return (
            f"Access to bucket {bucket} was denied by {endpoint} ({error.code}); check CELLSPARSE_S3_ACCESS_KEY and "
            "CELLSPARSE_S3_SECRET_KEY."
        )
    if isinstance(error, S3Error):
        return f"Cannot {action}: {endpoint} answered {error.code}: {_short(str(error.message))}."
    if isinstance(error, HTTPError):
        return _unreachable(error, endpoint)
    return f"Cannot {action}: {endpoint} answered {_short(str(error))}."


def no_bucket(bucket: str, endpoint: str) -> str:
    """Return the sentence for a missing bucket."""
    return f"Bucket {bucket} does not exist at {endpoint}; make it first or change CELLSPARSE_STORE_URL."


def _unreachable(error: HTTPError, endpoint: str) -> str:
    reason: BaseException = error
    if isinstance(error, MaxRetryError) and error.reason is not None:
        reason = error.reason
    if isinstance(reason, SSLError):
        return (
            f"TLS with {endpoint} failed: {_short(str(reason))}; CELLSPARSE_S3_CA_BUNDLE names the authorities to "
            "trust, CELLSPARSE_S3_SECURE=false speaks without TLS."
        )
    if isinstance(reason, ConnectTimeoutError | ReadTimeoutError) and not isinstance(reason, NewConnectionError):
        return f"Cannot reach {endpoint}: no answer in time."
    # urllib3's text contains addresses of Python objects. The reason from the system below it is helpful.
    return f"Cannot reach {endpoint}: {_short(str(reason.__cause__ or reason))}."


def _short(text: str) -> str:
    text = text.rstrip(".")
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
