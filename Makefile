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
DATA ?=

.PHONY: help
help: ## Explain all targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/\1\t\2/' | expand -t 20

$(UV):
	$(PYTHON) -m venv $(CACHE)/uv-$(UV_VERSION)
	$(CACHE)/uv-$(UV_VERSION)/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

# The stubs belong to the installed packages: a changed proto or lock installs anew.
.venv/.ready: $(UV) uv.lock pyproject.toml $(wildcard services/*/pyproject.toml) $(wildcard proto/cellsparse/v1/*.proto) services/common/build_stubs.py
	$(UV) sync --locked --quiet
	$(BIN)/python services/common/build_stubs.py
	@touch $@

.PHONY: setup
setup: .venv/.ready ## Install all packages into .venv, exactly as locked

.PHONY: tools
tools: ## Build the Go programs that tests run against into .tools/bin (cached outside the tree)
	bash tests/tools/build.sh

.PHONY: proto
proto: .venv/.ready ## Generate the Python stubs from proto/
	$(BIN)/python services/common/build_stubs.py

.PHONY: lint
lint: .venv/.ready ## Check style, types, protos and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd proto && ../$(BIN)/buf lint && ../$(BIN)/buf format --diff --exit-code
	$(BIN)/lint-imports
	$(UV) lock --check --quiet

.PHONY: format
format: .venv/.ready ## Rewrite sources in the project's style
	$(BIN)/ruff check --fix --quiet . || true
	$(BIN)/ruff format --quiet .
	cd proto && ../$(BIN)/buf format --write

.PHONY: test
test: .venv/.ready tools ## Run unit and integration tests, with a real MinIO where it can be built
	$(PYTEST) tests/unit tests/integration

.PHONY: test-unit
test-unit: .venv/.ready ## Run unit tests only
	$(PYTEST) tests/unit

.PHONY: test-integration
test-integration: .venv/.ready tools ## Run integration tests only: real services on loopback
	$(PYTEST) tests/integration

.PHONY: test-e2e
test-e2e: .venv/.ready ## Run the whole system through the command line
	$(PYTEST) tests/e2e

.PHONY: demo
demo: .venv/.ready ## Train all three models on real nuclei; DATA=dir takes your images/ and masks/
	$(BIN)/python -m cellsparse.demo --out out/demo $(if $(DATA),--data "$(DATA)")

.PHONY: bench
bench: .venv/.ready ## Measure the sparsifier; writes out/bench/sparsify.json
	$(BIN)/python benchmarks/sparsify.py

.PHONY: clean
clean: ## Remove what the other targets made in this folder
	rm -rf .venv .tools out dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find services tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
