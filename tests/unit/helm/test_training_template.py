"""templates/tests/training.yaml: what `helm test` runs."""

import ast

from support.helm import container, one, pod, refusal, render, variables

NAME = "lab-cellsparse-test"


def test_a_pod_of_the_orchestrators_image_trains_as_asked():
    test = one(render({"test": {"backend": "cellpose", "seconds": 90}}), "Pod", NAME)
    # Gone before its log is read, it would make `helm test --logs` fail.
    assert test["metadata"]["annotations"] == {
        "helm.sh/hook": "test",
        "helm.sh/hook-delete-policy": "before-hook-creation",
    }
    assert container(test)["image"] == "ghcr.io/cellsparse/cellsparse-orchestrator:0.1.0"
    assert container(test)["args"] == [
        "lab-cellsparse-orchestrator.imaging.svc:50050",
        "--backend=cellpose",
        "--seconds=90",
    ]
    assert test["spec"]["activeDeadlineSeconds"] == 150


def test_it_runs_the_script_that_the_chart_holds():
    objects = render()
    script = one(objects, "ConfigMap", NAME)["data"]["tiny_training.py"]
    assert ast.get_docstring(ast.parse(script))
    mounts = container(one(objects, "Pod", NAME))["volumeMounts"]
    assert {"name": "script", "mountPath": "/etc/cellsparse", "readOnly": True} in mounts


def test_with_tls_it_trusts_the_authority_and_sees_no_key():
    test = one(render({"tls": {"kind": "secret", "secret": "ours"}, "auth": {"kind": "off"}}), "Pod", NAME)
    assert variables(test) == {"CELLSPARSE_TLS_CA": "/run/cellsparse/tls/ca.crt"}
    volume = next(volume for volume in pod(test)["volumes"] if volume["name"] == "tls")
    assert volume["secret"]["items"] == [{"key": "ca.crt", "path": "ca.crt"}]


def test_a_backend_that_is_not_installed_is_refused():
    message = refusal({"test": {"backend": "unet"}, "trainers": [{"backend": "cellpose"}]})
    assert "test.backend is unet, but trainers holds only cellpose" in message
