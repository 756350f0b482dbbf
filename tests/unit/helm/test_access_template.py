"""templates/access.yaml."""

import yaml
from support.cluster import QUEUE_RULE, RULES
from support.helm import CHART, helm, names, one, pod, render

NAME = "lab-cellsparse-orchestrator"


def test_the_role_is_of_the_namespace_and_knows_six_kinds():
    for enabled, more in ((True, ["networking.k8s.io/networkpolicies"]), (False, [])):
        objects = render({"networkPolicies": {"enabled": enabled}})
        assert names(objects, "ClusterRole") == names(objects, "ClusterRoleBinding") == []
        rules = one(objects, "Role", NAME)["rules"]
        kinds = sorted(f"{group}/{kind}" for rule in rules for group in rule["apiGroups"] for kind in rule["resources"])
        assert kinds == ["/events", "/pods", "/pods/log", "/services", "batch/jobs", *more]
        assert all("*" not in rule["verbs"] for rule in rules)


def test_the_role_is_the_orchestrators():
    binding = one(render(), "RoleBinding", NAME)
    assert binding["roleRef"] == {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": NAME}
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": NAME, "namespace": "imaging"}]


def test_other_pods_use_an_account_without_rights():
    objects = render()
    account = one(objects, "ServiceAccount", "lab-cellsparse-trainer")
    assert account["automountServiceAccountToken"] is False
    for deployment in ("sparsifier", "unet"):
        spec = pod(one(objects, "Deployment", f"lab-cellsparse-{deployment}"))
        assert spec["serviceAccountName"] == "lab-cellsparse-trainer"


def test_cluster_tests_of_the_launcher_have_the_same_rights():
    assert one(render(), "Role", NAME)["rules"] == RULES
    for kueue in ({"queue": "training"}, {"projects": {"pr-a": {"queue": "lab-a"}}}):
        assert one(render({"kueue": kueue}), "Role", NAME)["rules"] == [*RULES, QUEUE_RULE]


def test_a_namespace_whose_name_is_a_number_stays_a_name():
    objects = [
        found for found in yaml.safe_load_all(helm("template", "lab", str(CHART), "--namespace=2024").stdout) if found
    ]
    assert one(objects, "RoleBinding", NAME)["subjects"][0]["namespace"] == "2024"
    settings = one(objects, "ConfigMap", "lab-cellsparse-cluster")["data"]["cluster.yaml"]
    assert yaml.safe_load(settings)["namespace"] == "2024"
