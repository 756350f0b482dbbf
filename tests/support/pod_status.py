"""What a kubelet writes about a pod."""

import datetime
from collections.abc import Mapping
from typing import Any

Object = dict[str, Any]


def now(*, micro: bool = False) -> str:
    """The time as Kubernetes writes it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")


def waiting(pod: Mapping[str, Any], reason: str, message: str) -> Object:
    """The container cannot start: ImagePullBackOff, CreateContainerConfigError, ..."""
    return _status(pod, "Pending", {"waiting": {"reason": reason, "message": message}})


def running(pod: Mapping[str, Any], address: str, started: str, *, ready: bool) -> Object:
    """The container runs; its readiness probe has answered or not."""
    return _status(pod, "Running", {"running": {"startedAt": started}}, address=address, started=started, ready=ready)


def ended(
    pod: Mapping[str, Any], address: str, started: str, code: int, *, why: str = "", reason: str = "", message: str = ""
) -> Object:
    """The container has ended.

    Args:
        pod: The pod.
        address: Its IP address.
        started: When it started.
        code: As `subprocess` gives it: negative for a signal.
        why: The container's reason, such as OOMKilled.
        reason: The pod's reason, such as Evicted.
        message: The pod's message.
    """
    exit_code = 128 - code if code < 0 else code
    state = {
        "exitCode": exit_code,
        "reason": why or ("Error" if code else "Completed"),
        "startedAt": started,
        "finishedAt": now(),
    }
    phase = "Failed" if code or reason else "Succeeded"
    status = _status(pod, phase, {"terminated": state}, address=address, started=started)
    return {**status, **{key: value for key, value in (("reason", reason), ("message", message)) if value}}


def _status(
    pod: Mapping[str, Any], phase: str, state: Object, *, address: str = "", started: str = "", ready: bool = False
) -> Object:
    container = pod["spec"]["containers"][0]
    conditions = [
        {"type": kind, "status": "True" if ready or kind in ("Initialized", "PodScheduled") else "False"}
        for kind in ("Initialized", "PodScheduled", "ContainersReady", "Ready")
    ]
    where = {"podIP": address, "podIPs": [{"ip": address}], "startTime": started} if address else {}
    return {
        "phase": phase,
        "hostIP": "127.0.0.1",
        **where,
        "conditions": conditions,
        "containerStatuses": [
            {
                "name": container["name"],
                "image": container["image"],
                "imageID": "",
                "ready": ready,
                "started": phase == "Running",
                "restartCount": 0,
                "state": state,
            }
        ],
    }
