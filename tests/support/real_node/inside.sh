#!/usr/bin/env bash
# Process 1 of a node's namespaces; see node.py, which gives the variables. All that it starts ends with it.
#
#   NODE     folder of this start: configuration, logs, what containerd and kubelet keep
#   NAME     of the node
#   ADDRESS  of the node, on eth0
#   BIN      folder of the programs
set -euo pipefail
hostname "$NAME"
mkdir -p "$NODE"/{kubelet,containerd,pods,containers,sysctl} /var/lib/{kubelet,containerd} /var/log/{pods,containers}
mount --bind "$NODE/kubelet" /var/lib/kubelet
mount --bind "$NODE/containerd" /var/lib/containerd
mount --bind "$NODE/pods" /var/log/pods
mount --bind "$NODE/containers" /var/log/containers
mount -t tmpfs tmpfs /run
mount --make-rshared /

# The kubelet sets these for the whole machine, unless they look set.
for pair in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
  kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
  file="$NODE/sysctl/$(basename "${pair%=*}")"
  echo "${pair#*=}" >"$file"
  mount --bind "$file" "/proc/sys/${pair%=*}"
done

# The network is made from outside.
until ip -4 addr show dev eth0 2>/dev/null | grep -q "$ADDRESS/"; do sleep 0.1; done

# forever NAME COMMAND...: runs a program anew whenever it ends; its output goes to a log.
forever() {
  local name=$1
  shift
  while :; do
    "$@" >>"$NODE/$name.log" 2>&1 || true
    sleep 1
  done
}

forever containerd containerd --config "$NODE/containerd.toml" &
until [ -S /run/containerd/containerd.sock ]; do sleep 0.1; done
forever kubelet "$BIN/kubelet" --config="$NODE/kubelet.yaml" --kubeconfig="$NODE/kubelet.kubeconfig" \
  --hostname-override="$NAME" --node-ip="$ADDRESS" --v=2 &
forever kube-proxy "$BIN/kube-proxy" --config="$NODE/kube-proxy.yaml" --hostname-override="$NAME" &
forever coredns "$BIN/coredns" -conf "$NODE/Corefile" &
forever netpol "$BIN/netpol" --kubeconfig="$NODE/netpol.kubeconfig" --hostname-override="$NAME" \
  --service-cluster-ip-range=10.96.0.0/16 &
while sleep 3600; do :; done
