#!/usr/bin/env bash
# Installs what a real node needs beside the programs that are built: containerd, runc, CNI plugins, and what handles
# packets. Only as root on Debian or Ubuntu; elsewhere it says what is missing, and tests that need it are skipped.
set -euo pipefail

# What must be there, and the package that brings it.
programs="
containerd containerd
runc runc
nft nftables
iptables iptables
ipset ipset
conntrack conntrack
ip iproute2
/usr/lib/cni/ptp containernetworking-plugins
"
missing=()
while read -r program package; do
  [ -z "$program" ] || PATH="$PATH:/sbin:/usr/sbin" command -v "$program" >/dev/null || missing+=("$package")
done <<<"$programs"
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "node: not installed are ${missing[*]}; tests that need them are skipped" >&2
  exit 0
fi
echo "node: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
if ! { apt-get update -qq && apt-get install --yes --no-install-recommends -qq "${missing[@]}" >/dev/null; }; then
  echo "node: ${missing[*]} could not be installed; tests that need them are skipped" >&2
fi
