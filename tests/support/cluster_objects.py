"""What a namespace holds, of every kind that the API server knows."""

import json
from typing import Any

from kubernetes import client

NOT_KEPT = {"events"}
"""Kinds that go by themselves after a while."""


def namespaced_kinds(api: client.ApiClient) -> list[tuple[str, str]]:
    """Return path of the API group's version and plural name of everything that can be listed in a namespace."""
    groups = _get(api, "/apis")["groups"]
    paths = ["/api/v1", *(f"/apis/{group['preferredVersion']['groupVersion']}" for group in groups)]
    return [
        (path, resource["name"])
        for path in paths
        for resource in _get(api, path)["resources"]
        if resource["namespaced"] and "list" in resource["verbs"] and resource["name"] not in NOT_KEPT
    ]


def objects_of(api: client.ApiClient, namespace: str, kinds: list[tuple[str, str]]) -> set[str]:
    """Return "kind/name" of everything in a namespace."""
    return {
        f"{kind}/{item['metadata']['name']}"
        for path, kind in kinds
        for item in _get(api, f"{path}/namespaces/{namespace}/{kind}")["items"]
    }


def _get(api: client.ApiClient, path: str) -> Any:
    method, url, header, *_ = api.param_serialize("GET", path, auth_settings=["BearerToken"])
    response = api.call_api(method, url, header, _request_timeout=30)
    response.read()
    assert response.status == 200, response.data
    return json.loads(response.data)
