"""templates/tls.yaml, and what TLS changes in the servers."""

import base64
import subprocess

from support.helm import names, one, pod, render, variables
from support.limits import PATIENCE

ISSUED = {"tls": {"kind": "certManager", "issuer": {"name": "lab", "kind": "ClusterIssuer"}, "names": ["x.example"]}}
GIVEN = {"tls": {"kind": "secret", "secret": "ours"}}


def test_no_certificate_unless_asked():
    assert names(render(), "Certificate") == names(render(GIVEN), "Certificate") == []
    assert "CELLSPARSE_TLS_CERT" not in variables(one(render(), "Deployment", "lab-cellsparse-orchestrator"))


def test_a_certificate_for_all_names_of_our_servers():
    spec = one(render(ISSUED), "Certificate", "lab-cellsparse-tls")["spec"]
    assert spec["issuerRef"] == {"name": "lab", "kind": "ClusterIssuer", "group": "cert-manager.io"}
    assert spec["secretName"] == "lab-cellsparse-tls"
    services = ("orchestrator", "sparsifier", "minio", "cellpose", "stardist", "unet", "cellpose-sam", "trainer")
    hosts = {f"lab-cellsparse-{service}{suffix}" for service in services for suffix in ("", ".imaging.svc")}
    assert set(spec["dnsNames"]) == {*hosts, "x.example"}


def test_every_server_is_given_the_certificate():
    for values, secret in ((ISSUED, "lab-cellsparse-tls"), (GIVEN, "ours")):
        objects = render(values)
        for server in ("orchestrator", "sparsifier", "unet"):
            deployment = one(objects, "Deployment", f"lab-cellsparse-{server}")
            found = variables(deployment)
            assert found["CELLSPARSE_TLS_CERT"] == "/run/cellsparse/tls/tls.crt"
            assert found["CELLSPARSE_TLS_KEY"] == "/run/cellsparse/tls/tls.key"
            volume = next(volume for volume in pod(deployment)["volumes"] if volume["name"] == "tls")
            assert volume["secret"]["secretName"] == secret


def test_only_the_orchestrator_calls_others_and_training_pods_by_one_name():
    objects = render(GIVEN)
    found = variables(one(objects, "Deployment", "lab-cellsparse-orchestrator"))
    assert found["CELLSPARSE_TLS_CA"] == "/run/cellsparse/tls/ca.crt"
    assert (
        found["CELLSPARSE_TLS_SERVER_NAME"]
        in one(render(ISSUED), "Certificate", "lab-cellsparse-tls")["spec"]["dnsNames"]
    )
    assert "CELLSPARSE_TLS_CA" not in variables(one(objects, "Deployment", "lab-cellsparse-sparsifier"))


def test_a_generated_certificate_is_signed_by_an_authority_whose_key_no_pod_sees(tmp_path):
    objects = render({"tls": {"kind": "generated", "names": ["x.example"]}})
    secret, authority = (one(objects, "Secret", f"lab-cellsparse-{name}")["data"] for name in ("tls", "authority"))
    assert set(secret) == {"tls.crt", "tls.key", "ca.crt"}
    assert secret["ca.crt"] == authority["ca.crt"]
    for name in ("ca.crt", "tls.crt"):
        (tmp_path / name).write_bytes(base64.b64decode(secret[name]))
    for host in ("lab-cellsparse-orchestrator.imaging.svc", "lab-cellsparse-trainer", "x.example"):
        words = ["openssl", "verify", "-CAfile", tmp_path / "ca.crt", "-verify_hostname", host, tmp_path / "tls.crt"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    workloads = [item for item in objects if item["kind"] in ("Deployment", "StatefulSet", "Job", "Pod")]
    assert not any("lab-cellsparse-authority" in str(item) for item in workloads)
    found = variables(one(objects, "Deployment", "lab-cellsparse-orchestrator"))
    assert (found["CELLSPARSE_TLS_CERT"], found["CELLSPARSE_INSECURE"]) == ("/run/cellsparse/tls/tls.crt", "0")
