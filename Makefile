# `make demo` and `make test` do all of their own set-up and repeat it only when its inputs change.
# PYTHON picks the interpreter of the virtual environment; it must be 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
COMPILED := $(VENV)/.compiled
MODEL := $(VENV)/.demo-model
BENCH := $(VENV)/.bench
BENCH_ARGS ?=
CLUSTER_TESTS ?= cluster
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup demo bench test test-fast test-full test-cluster lint format clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(INSTALLED) $(COMPILED) $(MODEL)  ## Virtual environment, packages, compiled op, model

demo: setup  ## Sweep four prompt loss weights on a real model and write the report
	plw sweep examples/demo.yaml

bench: setup $(BENCH)  ## This trainer beside TRL's, one table of ratios (BENCH_ARGS=--help)
	@python -m benchmarks.train $(BENCH_ARGS)

test: setup lint  ## Lint, fast tests and end-to-end tests
	pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not full and not cluster"

test-fast: $(INSTALLED)  ## The tests to run all the time (under 3 minutes)
	pytest

test-full: setup $(BENCH)  ## Every cell of every matrix
	pytest -m ""

# Where hosts cannot be made, it says why and is content.
test-cluster: setup  ## An on-premise cluster of namespaces, with faults (Linux, root)
	@python -m tests.cluster || exit 0; pytest -m "$(CLUSTER_TESTS)" -v tests/cluster

lint: $(INSTALLED)  ## ruff and mypy --strict
	ruff check .
	ruff format --check .
	mypy

format: $(INSTALLED)  ## Format the code
	ruff check --fix .
	ruff format .

clean:  ## Remove the virtual environment (the cache of models stays)
	rm -rf $(VENV)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --disable-pip-version-check \
		--constraint constraints.txt --editable '.[dev]'
	@touch $@

$(BENCH): $(INSTALLED)
	$(BIN)/python -m pip install -qq --disable-pip-version-check \
		--constraint constraints.txt --editable '.[bench]'
	@touch $@

$(COMPILED): $(INSTALLED) trainers/engine/compile_ops.py
	@echo "compiling DeepSpeed's CPU operation, about a minute the first time"
	@$(BIN)/python -m trainers.engine.compile_ops
	@touch $@

$(MODEL): $(INSTALLED) trainers/demo/model.py
	@$(BIN)/python -m trainers.demo.model
	@touch $@
