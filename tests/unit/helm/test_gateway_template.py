"""templates/gateway.yaml."""

import pytest
from support.helm import container, names, one, pod, refusal, render, variables

NAME = "lab-cellsparse-gateway"
NGINX = "nginx.ingress.kubernetes.io"


def test_image_replicas_and_placement_are_values():
    own = {"image": "mine", "replicas": 3, "nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}]}
    deployment = one(render({"gateway": own}), "Deployment", NAME)
    assert deployment["spec"]["replicas"] == 3
    assert container(deployment)["image"] == "mine"
    assert pod(deployment)["nodeSelector"] == {"a": "b"}
    assert pod(deployment)["tolerations"] == [{"operator": "Exists"}]
    assert container(one(render(), "Deployment", NAME))["image"] == "ghcr.io/cellsparse/cellsparse-gateway:0.1.0"


def test_it_knows_the_orchestrator_and_has_no_credentials():
    deployment = one(render({"database": {"kind": "postgresql"}, "tls": {"kind": "none"}}), "Deployment", NAME)
    assert variables(deployment) == {
        "CELLSPARSE_AUTH": "tokens",
        "CELLSPARSE_INSECURE": "0",
        "CELLSPARSE_GATEWAY_BEHIND_HTTPS": "1",
        "CELLSPARSE_GATEWAY_ORCHESTRATOR": "lab-cellsparse-orchestrator.imaging.svc:50050",
        "CELLSPARSE_GATEWAY_MAX_BODY_MIB": "512",
    }
    assert pod(deployment)["automountServiceAccountToken"] is False
    assert pod(deployment)["volumes"] == [{"name": "scratch", "emptyDir": {"sizeLimit": "4Gi"}}]


def test_with_tls_it_has_the_authority_and_no_key():
    deployment = one(render({"tls": {"kind": "secret", "secret": "ours"}}), "Deployment", NAME)
    assert variables(deployment)["CELLSPARSE_GATEWAY_TLS_CA"] == "/run/cellsparse/tls/ca.crt"
    (tls,) = [volume["secret"] for volume in pod(deployment)["volumes"] if volume["name"] == "tls"]
    assert (tls["secretName"], tls["items"]) == ("ours", [{"key": "ca.crt", "path": "ca.crt"}])


def test_with_a_certificate_of_its_own_it_shows_it_to_the_orchestrator():
    values = {"kind": "secret", "secret": "ours", "secrets": {"gateway": "mine"}}
    for tls, secret in ((values, "mine"), ({"kind": "generated"}, "lab-cellsparse-tls-gateway")):
        deployment = one(render({"tls": tls}), "Deployment", NAME)
        assert variables(deployment)["CELLSPARSE_GATEWAY_TLS_CERT"] == "/run/cellsparse/tls/tls.crt"
        assert variables(deployment)["CELLSPARSE_GATEWAY_TLS_KEY"] == "/run/cellsparse/tls/tls.key"
        (volume,) = [volume["secret"] for volume in pod(deployment)["volumes"] if volume["name"] == "tls"]
        assert volume == {"secretName": secret, "defaultMode": 0o440}


def test_variables_of_the_user_win():
    own = {"maxBodyMiB": 64, "environment": {"CELLSPARSE_GATEWAY_MAX_BODY_MIB": "32", "CELLSPARSE_QUPATH_SECONDS": "9"}}
    found = variables(one(render({"gateway": own}), "Deployment", NAME))
    assert (found["CELLSPARSE_GATEWAY_MAX_BODY_MIB"], found["CELLSPARSE_QUPATH_SECONDS"]) == ("32", "9")


def test_a_lost_orchestrator_makes_it_unready_but_restarts_nothing():
    own = container(one(render(), "Deployment", NAME))
    assert own["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert own["livenessProbe"]["httpGet"] == own["startupProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}


def test_the_service():
    service = one(render({"gateway": {"serviceType": "NodePort"}}), "Service", NAME)["spec"]
    assert service["type"] == "NodePort"
    assert {port["name"]: (port["port"], port["targetPort"]) for port in service["ports"]} == {
        "http": (8000, "http"),
        "metrics": (9090, "http"),
    }
    labels = one(render(), "Deployment", NAME)["spec"]["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()


def test_neither_ingress_nor_route_by_default():
    assert names(render(), "Ingress") == names(render(), "HTTPRoute") == []


def test_an_ingress_waits_for_trainings_and_lets_large_images_through():
    own = {"enabled": True, "className": "nginx", "host": "x.example", "tlsSecret": "cert", "annotations": {"a": "b"}}
    ingress = one(render({"gateway": {"ingress": own, "maxBodyMiB": 700}}), "Ingress", NAME)
    annotations = ingress["metadata"]["annotations"]
    assert annotations[f"{NGINX}/proxy-read-timeout"] == "3600"
    assert annotations[f"{NGINX}/proxy-body-size"] == "700m"
    assert annotations["a"] == "b"
    assert ingress["spec"]["ingressClassName"] == "nginx"
    assert ingress["spec"]["tls"] == [{"hosts": ["x.example"], "secretName": "cert"}]
    (path,) = ingress["spec"]["rules"][0]["http"]["paths"]
    assert path["backend"] == {"service": {"name": NAME, "port": {"name": "http"}}}


def test_annotations_of_the_user_win():
    own = {"enabled": True, "annotations": {f"{NGINX}/proxy-read-timeout": "60"}}
    annotations = one(render({"gateway": {"ingress": own}}), "Ingress", NAME)["metadata"]["annotations"]
    assert annotations[f"{NGINX}/proxy-read-timeout"] == "60"


def test_a_route_of_the_gateway_api():
    own = {"enabled": True, "gateway": "front", "gatewayNamespace": "edge", "host": "x.example"}
    route = one(render({"gateway": {"route": own}}), "HTTPRoute", NAME)["spec"]
    assert route["parentRefs"] == [{"name": "front", "namespace": "edge"}]
    assert route["hostnames"] == ["x.example"]
    (rule,) = route["rules"]
    assert rule["timeouts"] == {"request": "3600s", "backendRequest": "3600s"}
    assert rule["backendRefs"] == [{"name": NAME, "port": 8000}]
    assert "must name a Gateway" in refusal({"gateway": {"route": {"enabled": True}}})


def test_without_replicas_there_is_nothing_of_it():
    objects = render({"gateway": {"replicas": 0, "ingress": {"enabled": True}}})
    assert [item["kind"] for item in objects if item["metadata"]["name"] == NAME] == []


@pytest.mark.parametrize(
    ("values", "sources"),
    [
        ({}, 2),
        ({"networkPolicies": {"webNamespaces": {"team": "web"}}, "gateway": {"ingress": {"enabled": True}}}, 3),
        ({"gateway": {"ingress": {"enabled": True}}}, 0),
        ({"gateway": {"serviceType": "LoadBalancer"}}, 0),
    ],
)
def test_who_may_call_it(values, sources):
    (rule,) = one(render(values), "NetworkPolicy", NAME)["spec"]["ingress"]
    assert rule["ports"] == [{"port": 8000}]
    assert len(rule.get("from", [])) == sources
