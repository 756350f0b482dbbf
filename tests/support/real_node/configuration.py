"""The files that the programs of a real node read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from support.control_plane import ControlPlane
from support.real_node import network
from support.real_node.cgroups import group_name
from support.real_node.requirements import CNI_PLUGINS

PAUSE = "localhost/pause:1"
"""Image of the container that holds a pod's namespaces."""


def configure(plane: ControlPlane, folder: Path, number: int) -> None:
    """Write what the node's programs read."""
    users = {"kubelet": f"system:node:node{number}", "kube-proxy": "system:kube-proxy"}
    for program, user in {**users, "coredns": "coredns", "netpol": "netpol"}.items():
        (folder / f"{program}.kubeconfig").write_text(plane.kubeconfig(user).read_text())
    (folder / "containerd.toml").write_text(_containerd(folder))
    (folder / "cni").mkdir()
    (folder / "cni" / "10-node.conflist").write_text(json.dumps(_pod_network(number)))
    (folder / "kubelet.yaml").write_text(yaml.safe_dump(_kubelet(number)))
    (folder / "kube-proxy.yaml").write_text(yaml.safe_dump(_kube_proxy(folder)))
    (folder / "Corefile").write_text(_name_server(folder))


def _containerd(folder: Path) -> str:
    """Return the configuration of containerd 1.6, which Debian 12 has.

    Without CAP_SYS_RESOURCE, as in some virtual machines, no sandbox starts unless scores of the OOM killer are
    restricted.
    """
    plugin = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[{plugin}]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
[{plugin}.cni]
  bin_dir = "{CNI_PLUGINS}"
  conf_dir = "{folder / "cni"}"
[{plugin}.containerd]
  snapshotter = "overlayfs"
  discard_unpacked_layers = true
[{plugin}.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[{plugin}.containerd.runtimes.runc.options]
  SystemdCgroup = false
"""


def _pod_network(number: int) -> Mapping[str, Any]:
    address = {
        "type": "host-local",
        "dataDir": "/run/cni-addresses",
        "ranges": [[{"subnet": network.pod_range(number)}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    cable = {"type": "ptp", "ipMasq": False, "mtu": 1500, "ipam": address}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": "node", "plugins": [cable, ports]}


def _kubelet(number: int) -> Mapping[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        # Only this machine reaches it.
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{group_name(number)}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDNS": [network.node_address(number)],
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        "nodeLeaseDurationSeconds": 4,
        "nodeStatusUpdateFrequency": "2s",
        "imageGCHighThresholdPercent": 100,  # images are kept for the next start
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "enforceNodeAllocatable": ["pods"],
        "serializeImagePulls": False,
        "readOnlyPort": 0,
    }


def _kube_proxy(folder: Path) -> Mapping[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(folder / "kube-proxy.kubeconfig")},
        "mode": "nftables",
        "clusterCIDR": "10.244.0.0/16",
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "healthzBindAddress": "",
        "metricsBindAddress": "",
    }


def _name_server(folder: Path) -> str:
    """Return CoreDNS's configuration: names of the cluster, and no others."""
    return f"""cluster.local:53 {{
    errors
    kubernetes cluster.local {{
        kubeconfig {folder / "coredns.kubeconfig"}
        pods insecure
    }}
}}
.:53 {{
    template ANY ANY . {{
        rcode NXDOMAIN
    }}
}}
"""
