# Every step of development and CI. `make help` lists the targets.
# It works with uv, or with nothing but python3 (3.11 or newer) and pip.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
STAMP := $(VENV)/.from-lock
PYTEST_ARGS ?=
CAMPAIGN_ARGS ?=
WORKERS ?= 2
# A shell that forbids bytecode makes each start of the command compile 1,300 modules: 1 to 2 s that the tests and
# the figures would pay again and again.
export PYTHONDONTWRITEBYTECODE :=
CI_ARGS := $(if $(filter true,$(CI)),-v --durations=20)

.PHONY: help env lock servers packages check format test nightly bench bench-nomad campaign image demo demo-kubernetes demo-nomad proto clean

help: ## list the targets
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

env: $(STAMP) ## create .venv with what requirements.lock pins, and the project itself, editable

$(STAMP): requirements.lock pyproject.toml tools/env.sh
	@PYTHON="$(PYTHON)" bash tools/env.sh "$(VENV)"
	@touch $@

lock: ## write requirements.lock anew; run it whenever the dependencies in pyproject.toml change
	uv pip compile --universal --generate-hashes --no-emit-index-url --no-header --quiet \
	  --python-version 3.11 --extra dev pyproject.toml --output-file requirements.lock

packages: env ## install the Debian packages that the tests need (root; only what is missing)
	@$(BIN)/python -m tests.support.bed packages --if-root

servers: env ## build the real servers that the tests run, once, into the cache (minutes when cold)
	@$(BIN)/python -m tests.support.bed build

check: env ## ruff, mypy, import contracts, file and function sizes, drift of generated code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/size_gate.py
	$(BIN)/python tools/make_proto.py --check

format: env ## let ruff sort imports and format the code
	$(BIN)/ruff check --select I --fix .
	$(BIN)/ruff format .

test: env packages servers ## all tests, with real servers, in two processes; PYTEST_ARGS="-k name" narrows them
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(CI_ARGS) $(PYTEST_ARGS)

nightly: env ## the core's properties over 10,000 fault sequences instead of 500
	SNAPBRIDGE_EXAMPLES=10000 $(BIN)/python -m pytest tests/unit/decide --timeout 1800

bench: env packages servers ## measure beside the incumbent in one run: prints a table, writes bench.json
	$(BIN)/python -m bench
	$(MAKE) bench-nomad

bench-nomad: env ## 64 slow cuts by socket and by Nomad's API, and 2,000 jobs; a real agent when NOMAD_BIN names one
	$(BIN)/python -m bench.nomad_cuts
	$(BIN)/python -m bench.nomad_jobs --output bench-nomad-jobs.json

campaign: env packages servers ## the fault stories on upstream's stack and ours: leaked, doubled, lost, stuck (half an hour)
	$(BIN)/python -m bench.campaign $(CAMPAIGN_ARGS)

image: env ## the container image as an OCI archive, dist/snapbridge-image.tar: no registry takes part
	$(BIN)/python -m tools.image --revision "$$(git rev-parse HEAD 2>/dev/null || true)"

demo: env ## snapshot, damage, restore on this machine: nothing else is needed
	$(BIN)/python -m demo.standalone

demo-kubernetes: env ## the same with a real API server and kubectl; as root with a pod too
	$(BIN)/python -m demo.kubernetes

demo-nomad: env ## the same with a real Nomad agent (NOMAD_BIN), else with the fake one: it says which
	$(BIN)/python -m demo.nomad

proto: env ## generate bridge/pb from proto/ in an environment of its own
	$(BIN)/python tools/make_proto.py

clean: ## remove the environment and the tools' caches; built servers stay in the user's cache
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist .demo bench*.json campaign.json
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
