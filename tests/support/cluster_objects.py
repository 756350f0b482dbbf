"""What a namespace holds, of every kind that the API server knows, and what the server says of objects for it."""

import json
from collections.abc import Sequence
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


def refused_objects(api: client.ApiClient, namespace: str, objects: Sequence[dict[str, Any]]) -> list[str]:
    """Apply objects as `kubectl apply --server-side --validate=strict --dry-run=server` does; return what is refused.

    Nothing is made. A field that the object's kind does not have is an error, also in custom resources. The pods of a
    Deployment, StatefulSet or Job are created in the same way, so that the admission of pods judges them: with the
    namespace's own account, as theirs is not made.
    """
    paths: dict[str, dict[str, Any]] = {}
    refused = []
    for one in objects:
        refused += _refused(api, namespace, one, paths)
        name, template = one["metadata"]["name"], one.get("spec", {}).get("template")
        if one["kind"] in ("Deployment", "StatefulSet", "Job") and template:
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {**template["metadata"], "name": name}}
            claimed = [{"name": claim["metadata"]["name"], "emptyDir": {}} for claim in _claims(one)]
            volumes = [*template["spec"].get("volumes", []), *claimed]
            pod["spec"] = {**template["spec"], "serviceAccountName": "default", "volumes": volumes}
            refused += _refused(api, namespace, pod, paths)
    return refused


def _claims(workload: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = workload["spec"].get("volumeClaimTemplates", [])
    return found


def _refused(api: client.ApiClient, namespace: str, one: dict[str, Any], known: dict[str, dict[str, Any]]) -> list[str]:
    """Return why the API server refuses an object, if it does; `known` keeps the kinds of each group and version."""
    group, kind, name = one["apiVersion"], one["kind"], one["metadata"]["name"]
    path = f"/apis/{group}" if "/" in group else f"/api/{group}"
    if path not in known:
        known[path] = {found["kind"]: found for found in _get(api, path)["resources"] if "/" not in found["name"]}
    resource = known[path][kind]
    place = f"/namespaces/{namespace}" if resource["namespaced"] else ""
    options = {"fieldManager": "tests", "fieldValidation": "Strict", "dryRun": "All", "force": "true"}
    method, url, header, body, *_ = api.param_serialize(
        "PATCH",
        f"{path}{place}/{resource['name']}/{name}",
        query_params=list(options.items()),
        header_params={"Content-Type": "application/apply-patch+yaml"},
        body=one,
        auth_settings=["BearerToken"],
    )
    response = api.call_api(method, url, header, body, _request_timeout=30)
    response.read()
    return [] if response.status in (200, 201) else [f"{kind} {name}: {json.loads(response.data)['message']}"]


def _get(api: client.ApiClient, path: str) -> Any:
    method, url, header, *_ = api.param_serialize("GET", path, auth_settings=["BearerToken"])
    response = api.call_api(method, url, header, _request_timeout=30)
    response.read()
    assert response.status == 200, response.data
    return json.loads(response.data)
