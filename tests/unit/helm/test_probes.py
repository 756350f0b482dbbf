"""The probes of all templates."""

import pytest
from support.helm import render

PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


@pytest.mark.parametrize("tls", ["none", "generated"])
def test_servers_on_a_busy_node_have_time_to_answer(tls):
    """By default they would have one second, after which clients are sent elsewhere."""
    found = {}
    for each in render({"database": {"kind": "postgresql"}, "tls": {"kind": tls}}):
        if each["kind"] in ("Deployment", "StatefulSet"):
            (server,) = each["spec"]["template"]["spec"]["containers"]
            found |= {(each["metadata"]["name"], probe): server[probe] for probe in PROBES if probe in server}
    assert len({name for name, _ in found}) >= 5
    assert {probe["timeoutSeconds"] for probe in found.values()} == {5}
