"""Credentials for the object store that open what one attempt needs, and end after a while.

They come from the store's STS (AssumeRole with a session policy), and can do no more than the orchestrator's own keys.
"""

import json
import time
from datetime import UTC, datetime
from urllib.parse import unquote, urlsplit

from minio.credentials import AssumeRoleProvider
from minio.error import MinioException
from urllib3.exceptions import HTTPError

from cellsparse_common.errors import InvalidArgument, StorageError
from cellsparse_common.storage import keys
from cellsparse_common.storage.s3_connection import http_client
from cellsparse_orchestrator.runs.rows import RunAttempt
from cellsparse_orchestrator.settings import OrchestratorSettings
from cellsparse_proto.v1 import trainer_pb2

SHORTEST_SESSION = 3600
"""Shortest time that credentials are asked for, seconds. The policy itself ends those that shall end sooner."""
_LONGEST_ID = "r" * 63
LONGEST_POLICY = 2048
"""Most characters of a session policy, as AWS and MinIO have it."""


class CredentialIssuer:
    """Hands out credentials to attempts.

    Args:
        settings: The store, its keys, and where its STS is; `sts_endpoint` must be set.

    Raises:
        InvalidArgument: The store's prefix is too long for a policy.
    """

    def __init__(self, settings: OrchestratorSettings) -> None:
        self._settings = settings
        self._http = http_client(settings)
        parts = urlsplit(settings.store_url)
        self._bucket, self._prefix = parts.netloc, unquote(parts.path).strip("/")
        self.seconds = settings.sts_seconds
        """How long credentials are valid, seconds."""
        longest = RunAttempt(
            run_id=_LONGEST_ID,
            number=1,
            backend="",
            dataset_id=_LONGEST_ID,
            settings=trainer_pb2.TrainingSettings(initial_model=_LONGEST_ID),
        )
        length = len(policy(longest, self._bucket, self._prefix, until=0.0))
        if length > LONGEST_POLICY:
            raise InvalidArgument(
                f"The prefix in CELLSPARSE_STORE_URL has {len(self._prefix)} characters, {length - LONGEST_POLICY} "
                "characters too many in all the places where the policy of an attempt's credentials names it."
            )

    def issue(self, attempt: RunAttempt) -> trainer_pb2.StoreCredentials:
        """Return new credentials for an attempt.

        Raises:
            StorageError: STS does not answer, or refuses.
        """
        settings, end = self._settings, time.time() + self.seconds
        document = policy(attempt, self._bucket, self._prefix, until=end if self.seconds < SHORTEST_SESSION else None)
        provider = AssumeRoleProvider(
            sts_endpoint=settings.sts_endpoint,
            access_key=settings.s3_access_key,
            secret_key=settings.s3_secret_key.get_secret_value(),
            duration_seconds=max(self.seconds, SHORTEST_SESSION),
            policy=document,
            region=settings.s3_region,
            role_arn=settings.sts_role_arn or None,
            role_session_name=f"{attempt.run_id}-{attempt.number}"[:64],
            http_client=self._http,
        )
        try:
            found = provider.retrieve()
        except (HTTPError, MinioException, ValueError) as error:
            raise StorageError(
                f"{settings.sts_endpoint} gives no credentials for attempt {attempt.number} of run {attempt.run_id}: "
                f"{str(error).rstrip('.')}."
            ) from error
        if found.expiration is not None:
            end = min(end, found.expiration.replace(tzinfo=UTC).timestamp())
        made = trainer_pb2.StoreCredentials(
            access_key=found.access_key, secret_key=found.secret_key, session_token=found.session_token or ""
        )
        made.expire_time.FromDatetime(datetime.fromtimestamp(end, UTC))
        return made


def policy(attempt: RunAttempt, bucket: str, prefix: str, until: float | None = None) -> str:
    """Return the session policy of an attempt, as JSON.

    It opens its run, and for reading its dataset and the model that it starts from. A blob's name is the SHA-256 of its
    content, and blobs cannot be listed: only those can be read whose names are known, as the dataset's are by its
    manifest. A policy is too short to name them itself.

    Args:
        attempt: The attempt.
        bucket: The store's bucket.
        prefix: The store's prefix in it, without a slash at the end; empty: none.
        until: When what it opens is closed again, seconds since 1970; None: with the credentials.
    """
    start = f"{prefix}/" if prefix else ""

    def objects(below: str) -> str:
        return f"arn:aws:s3:::{bucket}/{start}{below}*"

    own = keys.run_prefix(attempt.run_id)
    readable = [keys.dataset_prefix(attempt.dataset_id), keys.BLOBS]
    if attempt.settings.initial_model:
        readable.append(keys.model_prefix(attempt.settings.initial_model))
    day = {} if until is None else {"DateLessThan": {"aws:CurrentTime": _time(until)}}
    bounded = {"Condition": day} if day else {}
    change = ["GetObject", "PutObject", "DeleteObject", "AbortMultipartUpload", "ListMultipartUploadParts"]
    statements = [
        {"Effect": "Allow", "Action": [f"s3:{name}" for name in change], "Resource": [objects(own)], **bounded},
        {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": [objects(part) for part in readable], **bounded},
        {
            "Effect": "Allow",
            "Action": ["s3:ListBucket"],
            "Resource": [f"arn:aws:s3:::{bucket}"],
            "Condition": {"StringLike": {"s3:prefix": [f"{start}{own}*"]}, **day},
        },
    ]
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, separators=(",", ":"))


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
