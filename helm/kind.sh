#!/usr/bin/env bash
# Makes a kind cluster on this machine, builds the images of this tree, loads them into it and installs the chart.
#
# usage: helm/kind.sh            make the cluster, or bring the one that is there up to date
#        helm/kind.sh --delete   delete it with all data
#
# NAME       of the cluster                                        (cellsparse)
# NAMESPACE  to install into                                       (imaging)
# BACKENDS   whose trainers are built and loaded                   (cellpose stardist unet)
# HELM_ARGS  further arguments of `helm upgrade`, such as --set auth.kind=off
# BASE_IMAGE, PYTHON_IMAGE, BUILD_ARGS: as for `make images`
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
name=${NAME:-cellsparse} namespace=${NAMESPACE:-imaging}
read -ra backends <<<"${BACKENDS:-cellpose stardist unet}"
registry=localhost/cellsparse tag=dev # those of values/kind.yaml

for program in docker kind kubectl helm; do
  command -v "$program" >/dev/null || { echo "kind.sh needs $program, which is not installed." >&2; exit 1; }
done
if [ "${1:-}" = --delete ]; then
  exec kind delete cluster --name "$name"
elif [ $# -gt 0 ]; then
  echo "kind.sh does not know $1; allowed: --delete." >&2
  exit 2
fi

images=() trainers=""
for service in orchestrator sparsifier gateway "${backends[@]/#/trainer_}"; do
  make "image-$service" REGISTRY="$registry" TAG="$tag"
  images+=("$registry/cellsparse-${service//_/-}:$tag")
done
for backend in "${backends[@]}"; do
  trainers+="${trainers:+,}{\"backend\":\"$backend\",\"warmReplicas\":1}" # a warm one answers predictions
done

kind get clusters | grep -qx "$name" || kind create cluster --name "$name" --wait 300s
kind load docker-image --name "$name" "${images[@]}"
read -ra more <<<"${HELM_ARGS:-}"
helm upgrade --install lab helm/cellsparse --kube-context "kind-$name" --namespace "$namespace" --create-namespace \
  --values helm/cellsparse/values/kind.yaml --set-json "trainers=[$trainers]" --set "test.backend=${backends[0]}" \
  --wait --timeout 15m "${more[@]}"
# Images keep their names, so the pods of an earlier run of this script still have the old ones.
kubectl --context "kind-$name" --namespace "$namespace" rollout restart deployment
kubectl --context "kind-$name" --namespace "$namespace" rollout status deployment --timeout 600s
echo "Next: helm test lab --kube-context kind-$name --namespace $namespace"
