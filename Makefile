SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# Everything downloaded or built once lives outside the tree, so that a new clone starts warm.
CACHE ?= $(if $(CELLSPARSE_CACHE),$(CELLSPARSE_CACHE),$(HOME)/.cache/cellsparse)
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
UV_VERSION := 0.13.9
UV := $(CACHE)/uv-$(UV_VERSION)/bin/uv
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
# Files of tests run side by side, each on one thread; a file's tests share what they start.
TEST_PROCESSES ?= 2
SIDE_BY_SIDE = OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 $(PYTEST) --dist loadfile --durations=15 --durations-min=20
UNIT_TESTS = $(SIDE_BY_SIDE) -n $(TEST_PROCESSES) tests/unit
# One more, as these also wait: for processes to end, to be missed, to be tried again. The longest files begin first, in
# the order of tests/integration/conftest.py.
INTEGRATION_TESTS = $(SIDE_BY_SIDE) -n $$(($(TEST_PROCESSES) + 1)) --no-loadscope-reorder tests/integration
DATA ?=
FULL ?=

.PHONY: help
help: ## Explain all targets
	@echo "To begin: make web (train in the browser), make demo (train all three models), make test."
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/\1\t\2/' | expand -t 20

$(UV):
	$(PYTHON) -m venv $(CACHE)/uv-$(UV_VERSION)
	$(CACHE)/uv-$(UV_VERSION)/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

# The stubs belong to the installed packages: a changed proto or lock installs anew. Compiled at once, PyTorch and
# TensorFlow are not compiled again by every process where Python may not write byte code (PYTHONDONTWRITEBYTECODE).
.venv/.ready: $(UV) uv.lock pyproject.toml $(wildcard services/*/pyproject.toml) $(wildcard proto/cellsparse/v1/*.proto) services/common/build_stubs.py
	$(UV) sync --locked --quiet --all-packages --extra demo --extra plots --extra search --compile-bytecode
	$(BIN)/python services/common/build_stubs.py
	@touch $@

.PHONY: setup
setup: .venv/.ready ## Install all packages into .venv, exactly as locked

.PHONY: tools
tools: ## Build the Go programs that tests run against into .tools/bin (cached outside the tree)
	bash tests/tools/build.sh

.PHONY: minio
minio: # one of the two programs that `make test` needs; the others take long to build
	bash tests/tools/build.sh minio

.PHONY: helm
helm: # the other program that `make test` needs: it renders the chart
	bash tests/tools/build.sh helm

.PHONY: jdk
jdk: # a Java compiler, for the tests of QuPath's clients; they are skipped without it
	bash tests/tools/java.sh jdk

.PHONY: groovy
groovy: # the language of QuPath's scripts, for the test of ours; it is skipped without it
	bash tests/tools/java.sh groovy

.PHONY: proto
proto: .venv/.ready ## Generate the Python stubs from proto/
	$(BIN)/python services/common/build_stubs.py

.PHONY: lint
lint: .venv/.ready helm ## Check style, types, protos, the direction of imports, the chart and known vulnerabilities
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd proto && ../$(BIN)/buf lint && ../$(BIN)/buf format --diff --exit-code
	$(SUPPLY).breaking --buf $(BIN)/buf
	$(BIN)/lint-imports
	$(UV) lock --check --quiet
	$(MAKE) --no-print-directory audit
	@if [ ! -x .tools/bin/helm ]; then echo "lint: helm is not there and Go is missing, so the chart was not checked"; exit 0; fi; \
	for values in helm/cellsparse/values.yaml helm/cellsparse/ci/*.yaml helm/cellsparse/values/*.yaml; do \
	  echo ".tools/bin/helm lint --strict --values $$values helm/cellsparse"; \
	  .tools/bin/helm lint --strict --quiet --values "$$values" helm/cellsparse; \
	done

.PHONY: chart-images
chart-images: .venv/.ready helm ## List the images of the chart, with `images.mirror` also where each is copied to; VALUES=file
	@$(BIN)/python helm/images.py $(VALUES)

.PHONY: chart-readme
chart-readme: .venv/.ready ## Write the tables of helm/cellsparse/README.md from the comments of values.yaml
	$(BIN)/python helm/readme.py

.PHONY: format
format: .venv/.ready ## Rewrite sources in the project's style
	$(BIN)/ruff check --fix --quiet . || true
	$(BIN)/ruff format --quiet .
	cd proto && ../$(BIN)/buf format --write

.PHONY: test
test: .venv/.ready minio helm ## Run all unit and integration tests, with a real MinIO and helm where they can be built
	@failed=""; for level in test-unit test-integration; do $(MAKE) --no-print-directory $$level || failed="$$failed $$level"; done; \
	if [ -n "$$failed" ]; then echo "make test: failed are$$failed" >&2; exit 1; fi

.PHONY: test-unit
test-unit: .venv/.ready helm ## Run unit tests only
	$(UNIT_TESTS)

.PHONY: test-sim
test-sim: .venv/.ready ## Play 10,000 schedules of faults against runs and the lease; ARGS="--schedules 100", or "--seed 7" for one
	cd tests && ../.venv/bin/python -m support.simulation $(ARGS)

.PHONY: test-crash
test-crash: .venv/.ready minio ## Kill every part in every phase of a training; outages, ten times as short (CRASH_COMPRESSION=1: real); ARGS=
	CRASH_MATRIX=whole OMP_NUM_THREADS=1 $(PYTEST) --durations=0 --durations-min=1 tests/integration/test_crash_matrix.py $(ARGS)

.PHONY: fuzz
fuzz: .venv/.ready ## Attack live servers with hostile files and requests; ARGS="--files 5000", or "--case call:17" for one
	cd tests && ../.venv/bin/python -m support.fuzz $(ARGS)

.PHONY: test-integration
test-integration: .venv/.ready minio ## Run integration tests only: real services on loopback
	$(INTEGRATION_TESTS)

.PHONY: browser
browser: # what the page's tests need: Debian's Chromium; without root the tests say that it is missing
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends chromium; } || \
	  echo "Chromium is missing and was not installed: the browser tests are skipped"

.PHONY: test-e2e
test-e2e: .venv/.ready browser ## Run the whole system through the command line and through the page, in a browser
	$(PYTEST) tests/e2e

# napari and its Qt are installed apart: they are for users' machines, and no other test needs them.
.venv-napari/.ready: .venv/.ready
	UV_PROJECT_ENVIRONMENT=.venv-napari $(UV) sync --locked --quiet --package cellsparse-napari --extra napari --group test --compile-bytecode
	@touch $@

.PHONY: napari
napari: .venv-napari/.ready ## Start napari with the plugin; `cellsparse up` starts the server that it trains on
	.venv-napari/bin/napari --with cellsparse-napari "Train from a few cells"

.PHONY: test-napari
test-napari: .venv-napari/.ready ## Run the napari plugin without a screen, in an environment of its own (350 MB)
	bash tests/napari_plugin/debian.sh
	.venv-napari/bin/npe2 validate cellsparse-napari
	QT_QPA_PLATFORM=offscreen OMP_NUM_THREADS=1 .venv-napari/bin/python -m pytest tests/napari_plugin tests/unit/napari

.PHONY: napari-picture
napari-picture: .venv-napari/.ready ## Train on real nuclei in napari and take the picture of docs/napari.md
	bash tests/napari_plugin/debian.sh
	PYTHONPATH=tests $(BIN)/python tests/napari_plugin/picture.py .assets/napari.png

# Cellpose-SAM needs Cellpose 4, which excludes the Cellpose 3 of the other trainer: an environment of its own, which the
# local launcher finds by its name.
.venv-cellpose-sam/.ready: .venv/.ready
	UV_PROJECT_ENVIRONMENT=.venv-cellpose-sam $(UV) sync --locked --quiet --no-default-groups --package cellsparse-cellpose-sam \
		--extra framework --group test --compile-bytecode
	@touch $@

# Tests of all backends' contract: each environment runs them for the backends that train in it.
CONTRACT := trainer_contract trainer_kills prefetch_backends

.PHONY: cellpose-sam
cellpose-sam: .venv-cellpose-sam/.ready ## Install the Cellpose-SAM trainer; `cellsparse up` starts it from then on

.PHONY: test-cellpose-sam
test-cellpose-sam: .venv-cellpose-sam/.ready minio ## Run the Cellpose-SAM trainer's tests, in an environment of its own
	OMP_NUM_THREADS=1 .venv-cellpose-sam/bin/python -m pytest tests/unit/trainer_cellpose_sam tests/cellpose_sam \
		$(CONTRACT:%=tests/integration/test_%.py)

.PHONY: test-cluster
test-cluster: .venv/.ready tools ## Run training on Kubernetes: a real control plane on loopback, chart and Jobs
	$(PYTEST) tests/cluster

.PHONY: node-tools
node-tools: # programs of a real node, built for several minutes once
	bash tests/tools/build.sh minio $(addprefix node/,kubelet kube-proxy coredns netpol pause)

.PHONY: node-images
node-images: .venv/.ready node-tools ## Build the images that a real node runs; options as for `make images`
	$(MAKE) $(addprefix image-,orchestrator sparsifier gateway trainer_unet) REGISTRY=localhost TAG=node
	PYTHONPATH=tests $(BIN)/python -m support.real_node.images --docker "$(DOCKER)"

.PHONY: test-node
test-node: .venv/.ready tools node-tools ## Run the chart on a real node, with containers: needs root and Docker
	bash tests/node/debian.sh
	if $(DOCKER) version >/dev/null 2>&1; then $(MAKE) node-images; fi
	DOCKER="$(DOCKER)" $(PYTEST) tests/node

.PHONY: test-upgrade
test-upgrade: .venv/.ready minio ## Upgrade from the last release, and go back, with its code; UPGRADE_BACKENDS=unet,stardist,cellpose
	OMP_NUM_THREADS=1 $(PYTEST) tests/upgrade

.PHONY: test-everything
test-everything: test test-upgrade test-cluster test-e2e test-napari test-cellpose-sam test-node ## All tests, with those of a real node

.PHONY: docs
docs: .venv/.ready ## Build the documentation into out/docs, offline; every warning is an error
	$(BIN)/python -m sphinx --builder html --fresh-env --fail-on-warning --keep-going --quiet \
		--doctree-dir out/docs-cache docs out/docs

.PHONY: web
web: .venv/.ready ## Start the local services and open the page in the browser; `cellsparse down` stops them
	$(BIN)/cellsparse up
	$(BIN)/cellsparse open

.PHONY: demo
demo: .venv/.ready ## Train all three models on real nuclei; DATA=dir takes your images/ and masks/
	$(BIN)/python -m cellsparse.demo --out out/demo $(if $(DATA),--data "$(DATA)")

.PHONY: bench
bench: .venv/.ready ## Measure the sparsifier; writes out/bench/sparsify.json
	$(BIN)/python benchmarks/sparsify.py

.PHONY: bench-imports
bench-imports: .venv/.ready ## Time `import cellsparse` and every command's --help beside `import numpy, grpc`
	$(BIN)/python benchmarks/imports.py

.PHONY: bench-accuracy
bench-accuracy: .venv/.ready ## Score `fast` on few and on all labels, reduced; FULL=1 for the whole table; TREE=dir ONLY=name DATA=dir
	$(BIN)/python benchmarks/accuracy.py $(if $(FULL),--full) $(if $(TREE),--tree "$(TREE)") $(if $(ONLY),--only "$(ONLY)") \
		$(if $(DATA),--data "$(DATA)")

.PHONY: bench-trainers
bench-trainers: .venv/.ready ## Time trainers beside the stock tools, FAST beside PAPER, memory; QUICK=1 or FULL=1, ARGS=
	$(BIN)/python benchmarks/trainers.py $(if $(QUICK),--quick) $(if $(FULL),--full) $(if $(DATA),--data "$(DATA)") $(ARGS)

.PHONY: bench-predictions
bench-predictions: .venv/.ready ## Predicted images per second over gRPC beside the stock tools; ARGS=
	PYTHONPATH=tests $(BIN)/python benchmarks/predictions.py $(ARGS)

.PHONY: bench-batches
bench-batches: .venv/.ready ## Whether small images go through a network faster together than one by one; ARGS=
	$(BIN)/python benchmarks/batches.py $(ARGS)

.PHONY: bench-large
bench-large: .venv/.ready ## Peak memory of each service for one image of 4096 x 4096 pixels, FULL=1 10,000; ARGS=
	PYTHONPATH=tests nice -n 15 $(BIN)/python benchmarks/large.py $(if $(FULL),--side 10000) $(ARGS)

.PHONY: gpu-check
gpu-check: .venv/.ready ## On a machine with a GPU: train all backends, compare with the CPU, measure; at most 8 minutes
	$(BIN)/python benchmarks/gpu_check.py $(ARGS)

.PHONY: bench-scale
bench-scale: .venv/.ready ## Measure what a second process gains, and what slow links between two nodes cost
	PYTHONPATH=tests $(BIN)/python benchmarks/scale.py $(if $(DATA),--data "$(DATA)")

.PHONY: bench-fork-server
bench-fork-server: .venv/.ready ## Measure the own fork server beside the standard one; PACKAGE=cellsparse_stardist
	$(BIN)/python benchmarks/fork_server.py $(PACKAGE)

.PHONY: bench-prefetch
bench-prefetch: .venv/.ready ## Measure worker processes for batches, the own ones and the standard pool
	$(BIN)/python benchmarks/prefetch.py

.PHONY: bench-people
bench-people: .venv/.ready ## Twenty people on one gateway: how long a stroke takes to save, memory; needs no GPU
	PYTHONPATH=tests $(BIN)/python benchmarks/people.py

.PHONY: bench-load
bench-load: .venv/.ready minio ## 500 watchers, 50 predicting clients and 20 uploads at once; out/bench/load.json; ARGS=
	PYTHONPATH=tests $(BIN)/python benchmarks/load.py $(ARGS)

.PHONY: bench-run-list
bench-run-list: .venv/.ready ## Time the pages of a list of 100,000 runs, on both databases; out/bench/run_list.json; ARGS=
	PYTHONPATH=tests $(BIN)/python benchmarks/run_list.py $(ARGS)

.PHONY: bench-sizing
bench-sizing: .venv/.ready ## Bytes in store and database, and memory of each service; out/bench/sizing.json; ARGS=
	PYTHONPATH=tests $(BIN)/python benchmarks/sizing.py $(ARGS)

.PHONY: bench-study
bench-study: .venv/.ready ## Run the paper's 108 members with tiny budgets, the orchestrator killed twice
	$(BIN)/python benchmarks/study.py

.PHONY: bench-prompts
bench-prompts: .venv/.ready ## Click into 500 cells of DSB2018 and score the proposals; DATA=folder LOOK=stained
	$(BIN)/python benchmarks/prompts.py $(if $(DATA),--data "$(DATA)") $(if $(LOOK),--look $(LOOK))

.PHONY: bench-suggest
bench-suggest: .venv/.ready ## Cells that random, minmax, typical and suggest need, reduced; FULL=1 for the whole table; ARGS=
	$(BIN)/python benchmarks/suggest.py $(if $(FULL),--full) $(if $(DATA),--data "$(DATA)") $(ARGS)

.PHONY: bench-page
bench-page: .venv/.ready browser ## Frame times of the page on 10,000 x 10,000 pixels with 20,000 cells; out/bench/page.json
	PYTHONPATH=tests $(BIN)/python benchmarks/page.py $(if $(QUICK),--quick)

.PHONY: bench-channels
bench-channels: .venv/.ready ## Train Cellpose on 1 and 2 channels, StarDist on 1 and 3, from 24 labelled cells; ARGS="--seeds 3"
	$(BIN)/python benchmarks/channels.py $(ARGS)

.PHONY: bench-stacks
bench-stacks: .venv/.ready ## Train StarDist and the U-Net on half of a real stack, score them on the other half
	$(BIN)/python benchmarks/stacks.py stardist --out out/bench/stacks-stardist.json
	$(BIN)/python benchmarks/stacks.py unet --out out/bench/stacks-unet.json

# Images: BASE_IMAGE and PYTHON_IMAGE replace the Dockerfiles' bases, REGISTRY stands before the names, BUILD_ARGS are
# further arguments of `docker build`. tests/images/base.sh makes a base from Debian packages where none can be pulled.
IMAGES := $(patsubst services/%/Dockerfile,%,$(wildcard services/*/Dockerfile))
DOCKER ?= docker
TAG ?= dev
IMAGE_PREFIX = $(if $(REGISTRY),$(REGISTRY)/)
REVISION = $(shell git rev-parse HEAD 2>/dev/null || echo unknown)

.PHONY: images
images: $(IMAGES:%=image-%) ## Build all images; BASE_IMAGE= PYTHON_IMAGE= REGISTRY= TAG= DOCKER= BUILD_ARGS=

image-%:
	@$(DOCKER) version >/dev/null 2>&1 || { echo "make images needs Docker with a running daemon." >&2; exit 1; }
	DOCKER_BUILDKIT=1 $(DOCKER) build --file services/$*/Dockerfile --tag $(IMAGE_PREFIX)cellsparse-$(subst _,-,$*):$(TAG) \
		$(if $(filter orchestrator gateway,$*),$(PYTHON_IMAGE:%=--build-arg PYTHON_IMAGE=%),$(BASE_IMAGE:%=--build-arg BASE_IMAGE=%)) \
		--build-arg REVISION=$(REVISION) $(BUILD_ARGS) .

.PHONY: kind
kind: ## Make a kind cluster with this tree's images and chart on this machine; NAME= BACKENDS= HELM_ARGS=
	bash helm/kind.sh

.PHONY: images-check
images-check: .venv/.ready ## Start all images, train in each trainer's, measure them: out/images.json; needs Docker
	PYTHONPATH=tests $(BIN)/python -m images.check --docker "$(DOCKER)" --prefix "$(IMAGE_PREFIX)" --tag "$(TAG)"

SUPPLY = PYTHONPATH=tests $(BIN)/python -m supply
IMAGE_NAMES = --docker "$(DOCKER)" --prefix "$(IMAGE_PREFIX)" --tag "$(TAG)"

.PHONY: images-sbom
images-sbom: .venv/.ready ## Write what each image holds as SPDX: out/sbom; asks Docker for the images, else the lock
	$(SUPPLY).sbom $(IMAGE_NAMES) --uv "$(UV)"

COSIGN_VERSION := v3.1.3
COSIGN ?= $(or $(shell command -v cosign),$(CACHE)/cosign-$(COSIGN_VERSION)/cosign)

.PHONY: cosign
cosign: # what signs images, built from its module where it is not installed; takes minutes
	@command -v "$(COSIGN)" >/dev/null || { command -v go >/dev/null && \
	  GOBIN="$(CACHE)/cosign-$(COSIGN_VERSION)" go install github.com/sigstore/cosign/v3/cmd/cosign@$(COSIGN_VERSION); } || \
	  { echo "cosign is missing and was not built, as Go is not installed or its module cannot be had." >&2; exit 1; }

.PHONY: images-sign
images-sign: .venv/.ready ## Sign pushed images and attest out/sbom with cosign: COSIGN_KEY= REGISTRY= TAG=
	$(SUPPLY).sign $(IMAGE_NAMES) --cosign "$(COSIGN)" --key "$(COSIGN_KEY)"

.PHONY: audit
audit: .venv/.ready # part of `make lint`
	$(SUPPLY).audit --uv "$(UV)" --pip-audit $(BIN)/pip-audit

.PHONY: bench-jobs
bench-jobs: .venv/.ready tools ## Cost of an orchestrator with 5,000 Jobs in a real control plane; JOBS=500 is quicker
	PYTHONPATH=tests $(BIN)/python benchmarks/jobs.py $(if $(JOBS),--jobs $(JOBS))

.PHONY: bench-run-writes
bench-run-writes: .venv/.ready ## Processor time of what the orchestrator writes for a run
	$(BIN)/python benchmarks/run_writes.py $(ARGS)

.PHONY: bench-run-requests
bench-run-requests: .venv/.ready ## Run requests per second of four clients while all GPUs of NODES=50 train; REQUESTS=2000 ARGS=
	PYTHONPATH=tests $(BIN)/python benchmarks/simulate.py --requests $(or $(REQUESTS),2000) --nodes $(or $(NODES),50) $(ARGS)

.PHONY: bench-simulate
bench-simulate: .venv/.ready ## The orchestrator on simulated nodes; FULL=1: 10,000 runs on 500; NODES=5,10 RUNS=100 ARGS=
	PYTHONPATH=tests $(BIN)/python benchmarks/simulate.py $(if $(FULL),--full) $(if $(NODES),--nodes $(NODES)) \
		$(if $(RUNS),--runs $(RUNS)) $(ARGS)

.PHONY: clean
clean: ## Remove what the other targets made in this folder
	rm -rf .venv .tools out dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find services tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
