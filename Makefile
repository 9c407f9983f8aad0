# `make demo` and `make test` run all set-up steps, and repeat them only when their inputs change.
# PYTHON is the interpreter of the virtual environment, 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
COMPILED := $(VENV)/.compiled
MODEL := $(VENV)/.demo-model
BENCH_ARGS ?=
CLUSTER_TESTS ?= cluster
# Wheels that a GPU machine needs beside torch, transformers and peft, and where they are installed.
GPU_WHEELS ?= build/gpu-wheels
GPU_SITE ?= build/gpu-site
GPU_OUT ?= runs/gpu
GPU_ARGS ?=
PYTEST := pytest -n 2 --dist loadfile --no-loadscope-reorder
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup demo dist bench test test-all test-fast test-full test-cluster test-gpu gpu-wheels lint format clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(INSTALLED) $(COMPILED) $(MODEL)  ## Create the virtual environment, compile the CPU operation, get the model

demo: $(INSTALLED)  ## Sweep three prompt loss weights with three seeds on a real model; report which is best
	plw demo examples/demo.yaml

dist: $(INSTALLED)  ## Build the sdist and the wheel in dist/
	python -m build

bench: setup  ## Compare with TRL's SFTTrainer: speed and memory (BENCH_ARGS=--help)
	@python -m benchmarks.train $(BENCH_ARGS)

test: setup lint  ## Lint, fast tests and the most important end-to-end tests
	$(PYTEST) -m "(not slow or smoke) and not full and not cluster"

test-all: test  ## All tests that CI runs, except the cluster tests
	$(PYTEST) -m "slow and not smoke and not full and not cluster"

test-fast: $(INSTALLED)  ## Fast tests, for use while developing (under 3 minutes)
	pytest

test-full: setup  ## Every cell of every matrix
	pytest -m ""

# Succeeds with a message where the machine cannot create network namespaces.
test-cluster: setup  ## Cluster of network namespaces, with faults (Linux, root)
	@python -m tests.cluster || exit 0; pytest -m "$(CLUSTER_TESTS)" -v tests/cluster

# DeepSpeed is published as source only. Its wheel compiles nothing, so it fits every Python 3.
gpu-wheels: $(INSTALLED)  ## Download the packages that a GPU machine needs for `make test-gpu`
	rm -rf $(GPU_WHEELS)
	python -m pip download -q --disable-pip-version-check --dest $(GPU_WHEELS) --no-deps \
		--only-binary=:all: --implementation cp --python-version 3.12 \
		$(foreach version,2_28 2_17,--platform manylinux_$(version)_x86_64) \
		--platform manylinux2014_x86_64 \
		--constraint constraints.txt --requirement benchmarks/gpu/wheels.txt
	python -m pip wheel -q --disable-pip-version-check --wheel-dir $(GPU_WHEELS) --no-deps \
		--no-build-isolation --constraint constraints.txt deepspeed
	@du -sh $(GPU_WHEELS)

# Needs no virtual environment: the machine's Python has torch, transformers and peft.
test-gpu:  ## Check and measure training on one CUDA GPU (docs/gpu.md)
	@test ! -d $(GPU_WHEELS) || $(PYTHON) -m pip install -q --disable-pip-version-check --no-index \
		--no-deps --no-compile --upgrade --target $(GPU_SITE) $(GPU_WHEELS)/*.whl
	PYTHONPATH=$(GPU_SITE) $(PYTHON) -m benchmarks.gpu --out $(GPU_OUT) $(GPU_ARGS)

lint: $(INSTALLED)  ## Run ruff and mypy --strict
	ruff check .
	ruff format --check .
	mypy

format: $(INSTALLED)  ## Format the code
	ruff check --fix .
	ruff format .

clean:  ## Remove the virtual environment (keeps the model cache)
	rm -rf $(VENV)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --disable-pip-version-check \
		--constraint constraints.txt --editable '.[dev]'
	@touch $@

$(COMPILED): $(INSTALLED) trainers/engine/compile_ops.py
	@echo "compiling DeepSpeed's CPU operation (about a minute the first time)"
	@$(BIN)/python -m trainers.engine.compile_ops
	@touch $@

$(MODEL): $(INSTALLED) trainers/demo/model.py
	@$(BIN)/python -m trainers.demo.model
	@touch $@
