"""templates/metrics.yaml."""

import json
import re

import yaml
from support.helm import names, one, render
from support.paths import TESTS

from cellsparse_common.rpc import metrics

RULES = {"metrics": {"rules": True}}


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
    values = {"metrics": {"dashboard": True, **RULES["metrics"]}, "autoscaling": {"kind": "keda"}}
    objects = render(values)
    board = json.loads(one(objects, "ConfigMap", "lab-cellsparse-dashboard")["data"]["cellsparse.json"])
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    triggers = one(objects, "ScaledObject", "lab-cellsparse-unet")["spec"]["triggers"]
    queries += [trigger["metadata"]["query"] for trigger in triggers]
    queries += [rule["expr"] for rule in rules(objects)]
    for query in queries:
        for name in re.findall(r"cellsparse_\w+", query):
            assert re.sub("_(bucket|sum|count)$", "", name) in known, query


def test_the_dashboard_shows_queue_outages_quotas_and_who_leads():
    found = one(render({"metrics": {"dashboard": True}}), "ConfigMap", "lab-cellsparse-dashboard")
    for name in ("queue_length", "queue_seconds", "ready", "store_away", "quota_used", "leads"):
        assert f"cellsparse_{name}" in found["data"]["cellsparse.json"], name


def rules(objects):
    (group,) = one(objects, "PrometheusRule", "lab-cellsparse")["spec"]["groups"]
    return group["rules"]


def test_alerts_are_about_their_own_namespace_and_say_what_to_do():
    assert names(render(), "PrometheusRule") == []
    for rule in rules(render(RULES)):
        assert 'namespace="imaging"' in rule["expr"]
        assert "NAMESPACE" not in str(rule)
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"].endswith((".", "?"))


def test_every_alert_has_a_case_in_which_it_fires():
    tests = yaml.safe_load((TESTS / "support" / "alerts_cases.yaml").read_text())
    fired = {case["alertname"] for test in tests["tests"] for case in test["alert_rule_test"] if case.get("exp_alerts")}
    assert fired == {rule["alert"] for rule in rules(render(RULES))}
