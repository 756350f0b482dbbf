"""What `auth` changes: tokens by default, an administrator's Secret, and servers that say why they may be reached."""

import base64
import re

import pytest
from support.helm import container, names, one, pod, refusal, render, variables

TLS = {"tls": {"kind": "secret", "secret": "ours"}}
PLAIN = {"tls": {"kind": "none"}}
OFF = {"auth": {"kind": "off"}}


def orchestrator(values):
    return one(render(values), "Deployment", "lab-cellsparse-orchestrator")


def sources(deployment):
    volume = next(each for each in pod(deployment)["volumes"] if each["name"] == "credentials")
    return {each["secret"]["name"]: each["secret"]["items"] for each in volume["projected"]["sources"]}


def test_tokens_are_asked_for_by_default_with_a_random_first_one():
    secret = one(render({}), "Secret", "lab-cellsparse-admin")
    assert re.fullmatch("cellsparse_[A-Za-z0-9]{43}", base64.b64decode(secret["data"]["token"]).decode())
    deployment = orchestrator({})
    assert variables(deployment)["CELLSPARSE_AUTH"] == "tokens"
    items = [{"key": "token", "path": "cellsparse_admin_token"}]
    assert sources(deployment)["lab-cellsparse-admin"] == items
    gateway = one(render({}), "Deployment", "lab-cellsparse-gateway")
    assert variables(gateway)["CELLSPARSE_AUTH"] == "tokens"


def test_a_given_secret_is_used_and_none_made():
    values = {"auth": {"existingSecret": "ours"}}
    assert "lab-cellsparse-admin" not in names(render(values), "Secret")
    assert "ours" in sources(orchestrator(values))
    test = one(render(values), "Pod", "lab-cellsparse-test")
    assert variables(test)["CELLSPARSE_TOKEN"] == {"secretKeyRef": {"name": "ours", "key": "token"}}


def test_off_asks_nobody_and_makes_no_secret():
    assert "lab-cellsparse-admin" not in names(render(OFF), "Secret")
    assert variables(orchestrator(OFF))["CELLSPARSE_AUTH"] == "off"
    assert "CELLSPARSE_TOKEN" not in variables(one(render(OFF), "Pod", "lab-cellsparse-test"))
    assert "auth/kind" in refusal({"auth": {"kind": "on"}}).replace(".", "/")


@pytest.mark.parametrize(
    ("values", "insecure"), [({}, "0"), (PLAIN, "1"), (TLS, "0"), ({**TLS, **OFF}, "1"), (OFF, "1")], ids=str
)
def test_the_orchestrator_needs_no_exception_with_tls_and_tokens(values, insecure):
    assert variables(orchestrator(values))["CELLSPARSE_INSECURE"] == insecure


def test_only_the_orchestrator_and_the_test_see_the_administrators_token():
    seeing = [
        item["metadata"]["name"]
        for item in render({})
        if item["kind"] in ("Deployment", "StatefulSet", "Pod", "Job") and "lab-cellsparse-admin" in str(item["spec"])
    ]
    assert sorted(seeing) == ["lab-cellsparse-orchestrator", "lab-cellsparse-test"]


PROVIDER = {"issuer": "https://id.example/realms/lab", "audience": "cellsparse"}


def test_an_identity_provider_is_named_to_the_orchestrator_which_may_reach_it():
    values = {"auth": {"oidc": {**PROVIDER, "roles": {"imaging": "annotator"}, "port": 8443}}}
    found = variables(orchestrator(values))
    assert found["CELLSPARSE_OIDC_ISSUER"] == "https://id.example/realms/lab"
    assert found["CELLSPARSE_OIDC_AUDIENCE"] == "cellsparse"
    roles = "cellsparse-admin=admin,cellsparse-annotator=annotator,cellsparse-reader=reader,imaging=annotator"
    assert found["CELLSPARSE_OIDC_ROLES"] == roles
    policy = one(render(values), "NetworkPolicy", "lab-cellsparse-orchestrator")
    assert {"ports": [{"port": 8443}]} in policy["spec"]["egress"]
    assert not [name for name in variables(orchestrator({})) if "OIDC" in name]


def test_an_identity_provider_without_an_audience_or_without_tls_is_refused():
    assert "audience" in refusal({"auth": {"oidc": {"issuer": "https://id.example"}}})
    assert "issuer" in refusal({"auth": {"oidc": {**PROVIDER, "issuer": "http://id.example"}}})
    assert "roles" in refusal({"auth": {"oidc": {**PROVIDER, "roles": {"x": "owner"}}}})


PAGE = {"clientId": "cellsparse", "url": "https://page.lab.example", "existingSecret": "client"}


def test_the_page_knows_its_client_and_may_reach_the_provider():
    oidc = {"issuer": "https://login.lab.example", "audience": "cellsparse", "port": 8443, "page": PAGE}
    objects = render({"auth": {"oidc": oidc}, "tls": {"kind": "generated"}})
    found = {each["name"]: each for each in container(one(objects, "Deployment", "lab-cellsparse-gateway"))["env"]}
    assert found["CELLSPARSE_OIDC_ISSUER"]["value"] == "https://login.lab.example"
    assert found["CELLSPARSE_GATEWAY_OIDC_CLIENT_ID"]["value"] == "cellsparse"
    assert found["CELLSPARSE_GATEWAY_PAGE_URL"]["value"] == "https://page.lab.example"
    secret = found["CELLSPARSE_GATEWAY_OIDC_CLIENT_SECRET"]["valueFrom"]["secretKeyRef"]
    assert secret == {"name": "client", "key": "clientSecret"}
    egress = one(objects, "NetworkPolicy", "lab-cellsparse-gateway")["spec"]["egress"]
    assert {"ports": [{"port": 8443}]} in egress


def test_a_client_without_a_provider_or_a_page_is_refused():
    sentence = "auth.oidc.page.clientId needs auth.oidc.issuer and auth.oidc.page.url"
    assert sentence in refusal({"auth": {"oidc": {"page": PAGE}}})
    assert "OIDC" not in str(container(one(render(), "Deployment", "lab-cellsparse-gateway"))["env"])
