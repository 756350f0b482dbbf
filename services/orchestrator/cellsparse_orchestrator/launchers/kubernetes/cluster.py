"""Access to the Kubernetes API: a client, and calls whose failures have one clear message."""

import json
from collections.abc import Callable
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from cellsparse_common.errors import CellsparseError, FailedPrecondition, ResourceExhausted, Unavailable

CALL_SECONDS = 15.0
_FULL = "exceeded quota"
"""Part of the API server's message when a ResourceQuota leaves no room."""


class Forbidden(FailedPrecondition):
    """RBAC or an admission policy refused the call.

    Such calls are retried for a while, because permissions often appear shortly after installation.
    """


def connect(kubeconfig: str = "") -> client.ApiClient:
    """Return a client that uses a kubeconfig file or, without one, the pod's service account.

    Raises:
        FailedPrecondition: The file or the service account is missing or not valid.
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
    settings.keep_alive = True  # end a watch whose peer vanished within bounded time
    return client.ApiClient(settings)


def call(work: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call the API; return None if the object does not exist.

    Raises:
        Unavailable: The API server does not answer, is overloaded, or does not know us, as while a token is renewed.
        ResourceExhausted: A quota of the namespace is used up; with the API server's own message.
        Forbidden: We lack the permission; with the API server's own message.
        FailedPrecondition: It refuses for another reason; with the API server's own message.
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
