"""templates/tls.yaml, and what TLS changes in the servers."""

from support.helm import names, one, pod, render, variables

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
