# Everything runs in a virtual environment that the first target makes (tools/bootstrap.sh).
# `make VENV=/other/place ...` puts it elsewhere; `make PYTHON=/path/to/python3 ...` chooses the Python.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTEST := $(BIN)/pytest
# so many files of integration tests run at once, but for those that must have the machine to themselves (`alone`)
WORKERS ?= 2
SEVERAL_FILES_AT_ONCE := -n $(WORKERS) --dist loadgroup --no-loadscope-reorder

# modules compiled once instead of at every start of every process
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-long test-kind lint format bench e2e e2e-workloads e2e-smoke programs helm manifests image proto lock clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: programs ## The main job end to end on a local cluster, with a report.
	$(BIN)/fairlane demo

test: lint programs helm ## Lint, then unit, simulation and integration tests (real processes).
	$(PYTEST) -q -m "not long" -n auto tests/unit tests/simulation
	$(PYTEST) -q -m "not long and not alone" $(SEVERAL_FILES_AT_ONCE) tests/integration
	$(PYTEST) -q -m "alone and not long" tests/integration

test-long: lint programs helm ## The same with the long tests.
	@[[ -n "$${FAIRLANE_BROWSER:-}" ]] || command -v chromium chromium-browser google-chrome >/dev/null \
	  || echo "no browser: the page's test is skipped (apt-get install chromium, or set FAIRLANE_BROWSER)"
	$(PYTEST) -q --timeout 1800 --hypothesis-profile explore -n auto tests/unit tests/simulation
	$(PYTEST) -q --timeout 1800 tests/integration

lint: $(INSTALLED) ## ruff, mypy --strict, import contracts.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED) ## Format, and fix what ruff can fix.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: programs ## Benchmarks, with stored JSON results.
	$(BIN)/fairlane bench

e2e: $(INSTALLED) ## On a kind cluster: the comparison, then the workloads (an hour in all).
	$(BIN)/fairlane e2e

e2e-workloads: $(INSTALLED) ## Only the workloads: Spark, training, users, faults, with a table of every job.
	$(BIN)/fairlane e2e --workloads

e2e-smoke: $(INSTALLED) ## The shortest run of the same (under 12 minutes once images are built).
	$(BIN)/fairlane e2e --smoke

test-kind: $(INSTALLED) ## Tests on a kind cluster of their own (tests/e2e; skipped without a container runtime).
	$(PYTEST) -q --timeout 1800 tests/e2e

programs: $(INSTALLED) ## Find, or build once, the programs of the local cluster.
	$(BIN)/fairlane testbed programs

helm: $(INSTALLED) ## Find, or build once, what the chart is tested with: helm, and the Prometheus that it can bring.
	$(BIN)/fairlane testbed programs helm prometheus-kubernetes

manifests: $(INSTALLED) ## Make the chart's generated parts, and manifests/ from the chart (builds helm once).
	$(BIN)/python -m testbed.chart

image: $(INSTALLED) ## The image for a cluster, and the list of what is in it: make image IMAGE=registry/fairlane:1.0
	$(BIN)/python -m testbed.kind.image $(or $(IMAGE),$(error IMAGE=registry/fairlane:1.0 is its name))

proto: $(INSTALLED) ## Generate the gRPC code from model/proto/*.proto.
	$(BIN)/python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. --grpc_python_out=. model/proto/*.proto

lock: $(INSTALLED) ## Resolve the dependencies anew into requirements.lock.
	$(BIN)/uv pip compile pyproject.toml --all-extras --generate-hashes --universal --python-version 3.11 \
	  --upgrade --quiet --no-annotate --no-header --no-emit-index-url --no-emit-find-links -o requirements.lock

clean: ## Remove the virtual environment, caches and reports; built programs stay in the cache folder.
	rm -rf $(VENV) build dist reports .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): requirements.lock tools/installer.lock pyproject.toml tools/bootstrap.sh
	tools/bootstrap.sh $(VENV)
	@touch $@
