"""templates/metrics.yaml."""

import json
import re

from support.helm import names, one, render

from cellsparse_common.rpc import metrics


def test_nothing_by_default():
    assert names(render(), "ServiceMonitor") == []
    assert "lab-cellsparse-dashboard" not in names(render(), "ConfigMap")


def test_the_monitor_finds_every_service_that_has_metrics():
    objects = render({"metrics": {"serviceMonitor": True}})
    spec = one(objects, "ServiceMonitor", "lab-cellsparse")["spec"]
    assert spec["endpoints"] == [{"port": "metrics"}]
    wanted = spec["selector"]["matchLabels"].items()
    for service in ("orchestrator", "gateway", "sparsifier", "cellpose", "stardist", "unet"):
        found = one(objects, "Service", f"lab-cellsparse-{service}")
        assert wanted <= found["metadata"]["labels"].items()
        assert "metrics" in [port["name"] for port in found["spec"]["ports"]]


def test_the_dashboard_is_what_grafana_reads():
    found = one(render({"metrics": {"dashboard": True}}), "ConfigMap", "lab-cellsparse-dashboard")
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    board = json.loads(found["data"]["cellsparse.json"])
    titles = [panel["title"] for panel in board["panels"]]
    assert len(titles) == len(set(titles)) >= 8
    assert len({panel["id"] for panel in board["panels"]}) == len(titles)


def test_dashboard_and_autoscaler_ask_for_metrics_that_exist():
    known = set(re.findall(r"^\| (cellsparse_\w+) ", metrics.__doc__, re.MULTILINE))
    values = {"metrics": {"dashboard": True}, "keda": {"enabled": True}}
    objects = render(values)
    board = json.loads(one(objects, "ConfigMap", "lab-cellsparse-dashboard")["data"]["cellsparse.json"])
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    (trigger,) = one(objects, "ScaledObject", "lab-cellsparse-unet")["spec"]["triggers"]
    queries.append(trigger["metadata"]["query"])
    for query in queries:
        for name in re.findall(r"cellsparse_\w+", query):
            assert re.sub("_(bucket|sum|count)$", "", name) in known, query
