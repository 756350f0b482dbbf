"""templates/tls.yaml, and what TLS changes in the servers."""

import base64
import subprocess

import pytest
from support.helm import names, one, pod, render, variables
from support.limits import PATIENCE

ISSUED = {"tls": {"kind": "certManager", "issuer": {"name": "lab", "kind": "ClusterIssuer"}, "names": ["x.example"]}}
GENERATED = {"tls": {"kind": "generated", "names": ["x.example"]}}
PLAIN = {"tls": {"kind": "none"}}
GIVEN = {"tls": {"kind": "secret", "secret": "ours"}}
APART = {
    "tls": {"kind": "secret", "secret": "ours", "secrets": {"orchestrator": "a", "sparsifier": "b", "trainer": "c"}}
}
ROLES = {"orchestrator": "orchestrator", "sparsifier": "sparsifier", "unet": "trainer"}
"""Role by Deployment."""
INNER = ("sparsifier", "unet")
SERVICES = {
    "orchestrator": ("orchestrator",),
    "sparsifier": ("sparsifier",),
    "trainer": ("cellpose", "stardist", "unet", "cellpose-sam", "trainer"),
    "gateway": ("gateway",),
    "minio": ("minio",),
}
"""First parts of the names in the certificate of each role."""


def deployment(values, name):
    return one(render(values), "Deployment", f"lab-cellsparse-{name}")


def hosts(role):
    own = {f"lab-cellsparse-{service}{suffix}" for service in SERVICES[role] for suffix in ("", ".imaging.svc")}
    return own | {"x.example"} if role == "orchestrator" else own


def test_an_authority_of_the_release_unless_something_else_is_asked_for():
    made = [*(f"lab-cellsparse-tls-{role}" for role in SERVICES), "lab-cellsparse-authority"]
    assert set(made) <= set(names(render(), "Secret"))
    for values in (GIVEN, PLAIN):
        assert names(render(values), "Certificate") == []
        assert not set(made) & set(names(render(values), "Secret"))
    assert "CELLSPARSE_TLS_CERT" not in variables(deployment(PLAIN, "orchestrator"))


@pytest.mark.parametrize("role", SERVICES)
def test_each_role_has_a_certificate_for_its_names_alone(role):
    spec = one(render(ISSUED), "Certificate", f"lab-cellsparse-tls-{role}")["spec"]
    assert spec["issuerRef"] == {"name": "lab", "kind": "ClusterIssuer", "group": "cert-manager.io"}
    assert spec["secretName"] == f"lab-cellsparse-tls-{role}"
    assert set(spec["dnsNames"]) == hosts(role)
    clients = role in ("orchestrator", "gateway")
    assert ("client auth" in spec["usages"], "server auth" in spec["usages"]) == (clients, role != "gateway")


def test_what_is_not_there_has_no_certificate():
    values = {"gateway": {"replicas": 0}, "minio": {"enabled": False}, "s3": {"endpoint": "s", "existingSecret": "k"}}
    for tls in (ISSUED, GENERATED):
        objects = render({**values, **tls})
        found = names(objects, "Certificate") or [name for name in names(objects, "Secret") if "-tls-" in name]
        assert found == [f"lab-cellsparse-tls-{role}" for role in ("orchestrator", "sparsifier", "trainer")]


@pytest.mark.parametrize("name", ROLES)
def test_every_server_is_given_its_certificate(name):
    own = {"orchestrator": "a", "sparsifier": "b", "trainer": "c"}[ROLES[name]]
    for values, secret in ((ISSUED, f"lab-cellsparse-tls-{ROLES[name]}"), (GIVEN, "ours"), (APART, own)):
        server = deployment(values, name)
        found = variables(server)
        assert found["CELLSPARSE_TLS_CERT"] == "/run/cellsparse/tls/tls.crt"
        assert found["CELLSPARSE_TLS_KEY"] == "/run/cellsparse/tls/tls.key"
        volume = next(volume for volume in pod(server)["volumes"] if volume["name"] == "tls")
        assert volume["secret"]["secretName"] == secret


@pytest.mark.parametrize("name", INNER)
def test_sparsifier_and_trainers_answer_the_orchestrator_alone(name):
    for values in (ISSUED, GENERATED, APART):
        found = variables(deployment(values, name))
        assert found["CELLSPARSE_TLS_CLIENT_CA"] == "/run/cellsparse/tls/ca.crt"
        assert found["CELLSPARSE_TLS_CALLERS"] == "lab-cellsparse-orchestrator.imaging.svc"
        assert "CELLSPARSE_INSECURE" not in found
    holders = [role for role in SERVICES if "lab-cellsparse-orchestrator.imaging.svc" in hosts(role)]
    assert holders == ["orchestrator"]


@pytest.mark.parametrize("name", INNER)
def test_one_certificate_for_all_tells_nobody_apart(name):
    for values in (PLAIN, GIVEN):
        found = variables(deployment(values, name))
        assert found["CELLSPARSE_INSECURE"] == "1"
        assert "CELLSPARSE_TLS_CALLERS" not in found


def test_clients_of_the_orchestrator_show_tokens_and_no_certificates():
    for values in (ISSUED, GENERATED, APART):
        assert "CELLSPARSE_TLS_CLIENT_CA" not in variables(deployment(values, "orchestrator"))


def test_only_the_orchestrator_calls_others_and_training_pods_by_one_name():
    found = variables(deployment(GIVEN, "orchestrator"))
    assert found["CELLSPARSE_TLS_CA"] == "/run/cellsparse/tls/ca.crt"
    assert found["CELLSPARSE_TLS_SERVER_NAME"] in hosts("trainer")
    assert "CELLSPARSE_TLS_CA" not in variables(deployment(GIVEN, "sparsifier"))


def test_generated_certificates_are_signed_by_an_authority_whose_key_no_pod_sees(tmp_path):
    objects = render(GENERATED)
    authority = one(objects, "Secret", "lab-cellsparse-authority")["data"]
    (tmp_path / "ca.crt").write_bytes(base64.b64decode(authority["ca.crt"]))
    for role in SERVICES:
        secret = one(objects, "Secret", f"lab-cellsparse-tls-{role}")["data"]
        assert set(secret) == {"tls.crt", "tls.key", "ca.crt"}
        assert secret["ca.crt"] == authority["ca.crt"]
        (tmp_path / "tls.crt").write_bytes(base64.b64decode(secret["tls.crt"]))
        for host in hosts(role):
            words = ["verify", "-CAfile", tmp_path / "ca.crt", "-purpose", "sslclient", "-verify_hostname", host]
            done = subprocess.run(
                ["openssl", *words, tmp_path / "tls.crt"], capture_output=True, text=True, timeout=PATIENCE, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
    workloads = [item for item in objects if item["kind"] in ("Deployment", "StatefulSet", "Job", "Pod")]
    assert not any("lab-cellsparse-authority" in str(item) for item in workloads)
    found = variables(one(objects, "Deployment", "lab-cellsparse-orchestrator"))
    assert (found["CELLSPARSE_TLS_CERT"], found["CELLSPARSE_INSECURE"]) == ("/run/cellsparse/tls/tls.crt", "0")
