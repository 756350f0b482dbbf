"""The control plane that the other tests here use is a real one: it schedules, controls and authorises."""

import time

import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from support.limits import PATIENCE


def test_a_job_gets_a_pod_that_waits_for_a_node(admin, namespace):
    container = {"name": "main", "image": "none", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
    spec = {"backoffLimit": 0, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}
    began = time.monotonic()
    client.BatchV1Api(admin).create_namespaced_job(namespace, {"metadata": {"name": "one"}, "spec": spec})
    core, pods = client.CoreV1Api(admin), []
    while time.monotonic() < began + PATIENCE:
        pods = core.list_namespaced_pod(namespace).items
        if pods and pods[0].status.conditions:
            break
        time.sleep(0.05)
    assert [pod.status.phase for pod in pods] == ["Pending"]
    assert pods[0].status.conditions[0].reason == "Unschedulable"


def test_a_service_account_may_do_nothing_until_it_is_allowed_to(control_plane, admin, namespace):
    core = client.CoreV1Api(admin)
    core.create_namespaced_service_account(namespace, {"metadata": {"name": "nobody"}})
    with control_plane.service_account_client(namespace, "nobody") as api, pytest.raises(ApiException) as caught:
        client.CoreV1Api(api).list_namespaced_secret(namespace)
    assert caught.value.status == 403
