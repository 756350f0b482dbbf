"""The Kubernetes API as the launcher needs it: a client, and calls whose failures are one clear sentence."""

import json
from collections.abc import Callable
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from cellsparse_common.errors import CellsparseError, FailedPrecondition, ResourceExhausted, Unavailable

CALL_SECONDS = 15.0
_FULL = "exceeded quota"
"""What the API server says where a ResourceQuota leaves no room."""


class Forbidden(FailedPrecondition):
    """A right is missing, or a policy refuses: a person can mend it, and a cluster that has just started will."""


def connect(kubeconfig: str = "") -> client.ApiClient:
    """Return a client: of a kubeconfig file, or of the pod's own service account.

    Raises:
        FailedPrecondition: Neither is there.
    """
    settings = client.Configuration()
    try:
        if kubeconfig:
            config.load_kube_config(config_file=kubeconfig, client_configuration=settings)
        else:
            config.load_incluster_config(client_configuration=settings)
    except config.ConfigException as error:
        raise FailedPrecondition(f"The Kubernetes API cannot be reached from here: {error}.") from error
    settings.retries = 2
    settings.keep_alive = True  # a watch whose other side is gone without a word ends in time
    return client.ApiClient(settings)


def call(work: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call the API; None if the object does not exist.

    Raises:
        Unavailable: The API server does not answer, is overrun, or does not know us, as while a token is renewed.
        ResourceExhausted: A quota of the namespace is used up; the API server's own sentence.
        Forbidden: It does not let us; its own sentence.
        FailedPrecondition: It refuses otherwise; its own sentence.
    """
    try:
        return work(*args, **{"_request_timeout": CALL_SECONDS, **options})
    except ApiException as error:
        if error.status == 404:
            return None
        if not error.status or error.status >= 500 or error.status in (401, 429):
            raise Unavailable(f"The Kubernetes API answers {error.status} {error.reason}.") from error
        raise _refusal(error.status, _sentence(error)) from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise Unavailable(f"The Kubernetes API does not answer: {error}.") from error


def _refusal(status: int, sentence: str) -> CellsparseError:
    if status != 403:
        return FailedPrecondition(f"The Kubernetes API refuses: {sentence}")
    if _FULL in sentence:
        return ResourceExhausted(f"The namespace has no room: {sentence}")
    return Forbidden(f"The Kubernetes API refuses: {sentence}")


def _sentence(error: ApiException) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (ValueError, KeyError, TypeError):
        return f"{error.status} {error.reason}"
