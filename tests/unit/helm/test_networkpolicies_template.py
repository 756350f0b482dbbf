"""templates/networkpolicies.yaml: who may speak to whom, worked out from the rendered policies."""

import pytest
import yaml
from support.helm import names, one, render

POSTGRESQL = {"database": {"kind": "postgresql"}}
EXTERNAL = {
    "minio": {"enabled": False},
    "s3": {"endpoint": "s3.example:8443", "existingSecret": "keys"},
    "database": {"kind": "external", "existingSecret": "sql", "port": 6543},
}
PODS = {
    "orchestrator": ("orchestrator", "orchestrator"),
    "gateway": ("gateway", "gateway"),
    "sparsifier": ("sparsifier", "sparsifier"),
    "warm": ("warm-unet", "trainer"),
    "job": ("trainer-unet", "trainer"),
    "minio": ("minio", "minio"),
    "postgresql": ("postgresql", "postgresql"),
    "migrate": ("migrate", "migrate"),
    "test": ("test", "test"),
}
"""Name and component label of the pods."""
FLOWS = {
    ("gateway", "orchestrator", 50050),
    ("orchestrator", "sparsifier", 50051),
    ("orchestrator", "warm", 50052),
    ("orchestrator", "job", 50052),
    ("orchestrator", "minio", 9000),
    ("orchestrator", "postgresql", 5432),
    ("sparsifier", "minio", 9000),
    ("warm", "minio", 9000),
    ("job", "minio", 9000),
    ("migrate", "postgresql", 5432),
    ("test", "orchestrator", 50050),
}


def labels(pod):
    name, component = PODS[pod]
    return {
        "app.kubernetes.io/name": name,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/instance": "lab-cellsparse",
        "app.kubernetes.io/part-of": "cellsparse",
        **({"cellsparse.dev/run": "run-1"} if pod == "job" else {}),
    }


def selects(selector, pod):
    own = labels(pod)
    return selector.get("matchLabels", {}).items() <= own.items() and all(
        expression["key"] in own
        if expression["operator"] == "Exists"
        else own.get(expression["key"]) in expression["values"]
        for expression in selector.get("matchExpressions", [])
    )


def policies(values):
    return [item["spec"] for item in render(values) if item["kind"] == "NetworkPolicy"]


def allowed(values, pod, direction, peer, port):
    """Whether a policy of `pod` lets it speak with a pod (None: something that is no pod of this cluster)."""
    side = {"Ingress": "from", "Egress": "to"}[direction]
    mine = [spec for spec in policies(values) if selects(spec["podSelector"], pod) and direction in spec["policyTypes"]]
    assert mine, f"nothing restricts {pod}"
    for rule in (rule for spec in mine for rule in spec.get(direction.lower(), [])):
        if not any(entry["port"] <= port <= entry.get("endPort", entry["port"]) for entry in rule["ports"]):
            continue
        if side not in rule:
            return True
        if peer and any("podSelector" in entry and selects(entry["podSelector"], peer) for entry in rule[side]):
            return True
    return False


@pytest.mark.parametrize("pod", PODS)
def test_a_pod_speaks_with_whom_it_must_and_nobody_else(pod):
    ports = {port for _, _, port in FLOWS}
    for peer in PODS:
        for port in ports:
            both = allowed(POSTGRESQL, pod, "Egress", peer, port) and allowed(POSTGRESQL, peer, "Ingress", pod, port)
            assert both == ((pod, peer, port) in FLOWS), (pod, peer, port)


def test_pods_of_jobs_speak_to_each_other_only_by_the_policy_that_is_made_for_their_attempt():
    for enabled in (True, False):
        objects = render({"networkPolicies": {"enabled": enabled}})
        settings = yaml.safe_load(one(objects, "ConfigMap", "lab-cellsparse-cluster")["data"]["cluster.yaml"])
        assert settings["rank_policies"] is enabled
    for port in (29400, 50052, 65535):
        assert not allowed({}, "job", "Egress", "job", port)


def test_everyone_may_ask_for_names():
    assert all(allowed({}, pod, "Egress", None, 53) for pod in PODS)


def test_only_the_orchestrator_reaches_the_api_server():
    for port in (443, 6443):
        assert [pod for pod in PODS if allowed({}, pod, "Egress", None, port)] == ["orchestrator"]
    moved = {"networkPolicies": {"apiServerPorts": [16443]}}
    assert allowed(moved, "orchestrator", "Egress", None, 16443)
    assert not allowed(moved, "orchestrator", "Egress", None, 443)


def test_a_store_and_a_database_elsewhere_are_reached_by_port():
    users = [pod for pod in PODS if allowed(EXTERNAL, pod, "Egress", None, 8443)]
    assert users == ["orchestrator", "sparsifier", "warm", "job"]
    assert [pod for pod in PODS if allowed(EXTERNAL, pod, "Egress", None, 6543)] == ["orchestrator", "migrate"]


@pytest.mark.parametrize(("endpoint", "secure", "port"), [("s3.example", True, 443), ("s3.example", False, 80)])
def test_an_endpoint_without_a_port_has_the_schemes_own(endpoint, secure, port):
    values = {**EXTERNAL, "s3": {**EXTERNAL["s3"], "endpoint": endpoint, "secure": secure}}
    assert allowed(values, "job", "Egress", None, port)


def test_clients_of_other_namespaces_need_the_labels():
    def sources(values):
        (rule,) = one(render(values), "NetworkPolicy", "lab-cellsparse-orchestrator")["spec"]["ingress"]
        assert rule["ports"] == [{"port": 50050}]
        return rule.get("from")

    assert sources({}) == [{"podSelector": {}}]
    named = {"networkPolicies": {"clientNamespaces": {"team": "imaging"}}}
    assert sources(named) == [{"podSelector": {}}, {"namespaceSelector": {"matchLabels": {"team": "imaging"}}}]
    assert sources({"orchestrator": {"serviceType": "LoadBalancer"}}) is None


def test_metrics_are_for_the_monitoring_namespace():
    (spec,) = [spec for spec in policies({}) if "9090" in str(spec)]
    (rule,) = spec["ingress"]
    assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]


def test_they_can_be_off():
    assert names(render({"networkPolicies": {"enabled": False}}), "NetworkPolicy") == []
