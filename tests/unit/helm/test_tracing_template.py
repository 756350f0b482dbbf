"""Values `tracing`: whose environment names the collector, and who may reach it."""

import pytest
import yaml
from support.helm import container, names, one, refusal, render

VALUES = {"tracing": {"endpoint": "http://otel.monitoring:4318", "share": 0.25}}
POLICY = "lab-cellsparse-tracing"


def variables(workload) -> dict:
    return {each["name"]: each.get("value") for each in container(workload)["env"]}


def test_off_by_default():
    objects = render()
    assert POLICY not in names(objects, "NetworkPolicy")
    assert "OTEL_" not in str(objects)


def test_all_services_and_training_jobs_send_to_the_collector():
    objects = render(VALUES)
    wanted = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel.monitoring:4318",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.25",
        "OTEL_RESOURCE_ATTRIBUTES": "k8s.namespace.name=imaging",
    }
    for service in ("gateway", "sparsifier", "cellpose", "unet"):
        assert wanted.items() <= variables(one(objects, "Deployment", f"lab-cellsparse-{service}")).items()
    (orchestrator,) = [
        each
        for each in objects
        if each["metadata"]["name"] == "lab-cellsparse-orchestrator" and each["kind"] in ("Deployment", "StatefulSet")
    ]
    assert wanted.items() <= variables(orchestrator).items()
    config = one(objects, "ConfigMap", "lab-cellsparse-cluster")["data"]["cluster.yaml"]
    assert wanted.items() <= yaml.safe_load(config)["environment"].items()


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [("http://otel:4318", 4318), ("https://otel.lab.example", 443), ("http://otel/v1", 80), ("https://[", None)],
)
def test_the_policies_open_the_collectors_port(endpoint, port):
    values = {"tracing": {"endpoint": endpoint}}
    if port is None:
        assert "tracing" in refusal(values)
        return
    spec = one(render(values), "NetworkPolicy", POLICY)["spec"]
    assert spec["egress"] == [{"ports": [{"port": port}]}]
    components = spec["podSelector"]["matchExpressions"][0]["values"]
    assert components == ["gateway", "orchestrator", "sparsifier", "trainer"]


def test_a_share_beyond_all_is_refused():
    assert "share" in refusal({"tracing": {"share": 2}})
