"""Definitions of custom resources in a real API server."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
import yaml
from kubernetes import client
from support.control_plane import BIN
from support.orchestrator import until

FILES = BIN.parent / "files" / "crds"


def chart_definitions() -> list[dict[str, Any]]:
    """Return the definitions of what the chart makes for cert-manager, KEDA, the Prometheus operator and a Gateway.

    They are the projects' own files, see tests/tools/crds.
    """
    if not FILES.is_dir():
        pytest.skip("the projects' custom resources are not there; `make tools` copies them where Go is installed")
    return [yaml.safe_load(path.read_text()) for path in sorted(FILES.rglob("*.yaml"))]


def apply_definitions(api: client.ApiClient, definitions: Sequence[dict[str, Any]]) -> None:
    """Make definitions and wait until the API server serves them."""
    extensions = client.ApiextensionsV1Api(api)
    for one in definitions:
        extensions.create_custom_resource_definition(one, _preload_content=False)
    names = {one["metadata"]["name"] for one in definitions}

    def served() -> bool:
        found = extensions.list_custom_resource_definition().items
        return names <= {one.metadata.name for one in found if _established(one)}

    until(served)


def delete_definitions(api: client.ApiClient, definitions: Sequence[dict[str, Any]]) -> None:
    """Delete definitions, and with them all objects of their kinds; wait until they are gone."""
    extensions = client.ApiextensionsV1Api(api)
    names = {one["metadata"]["name"] for one in definitions}
    for name in names:
        with suppress(client.ApiException):  # it was not made
            extensions.delete_custom_resource_definition(name)
    until(lambda: not names & {one.metadata.name for one in extensions.list_custom_resource_definition().items})


def _established(definition: Any) -> bool:
    return any(one.type == "Established" and one.status == "True" for one in definition.status.conditions or [])
