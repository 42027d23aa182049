# Finance Lakehouse. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3.11
UV_VERSION := 0.13.9
VENV := .venv
BIN := $(VENV)/bin
JARS := .jars
ASSETS ?= BTCUSD,ETHUSD
DAYS ?= 7
SECONDS ?= 60
DEMO_ARGS ?=
PYTEST_ARGS ?=
BENCH_VENV := .venv-bench
BENCH_ARGS ?=

.PHONY: help setup s3 kafka backfill stream-demo test soak lint bench pins clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

setup: $(VENV)/.ready $(JARS)/.ready ## environment in .venv and Spark jars in .jars; does nothing the second time

s3: setup $(JARS)/.s3-ready ## what Spark needs for a lake in S3, beside the other jars

kafka: setup $(JARS)/.kafka-ready ## what Spark needs to read Kafka, and a broker for tests and demonstrations

# The stamp is written last, so that an interrupted set-up is done again.
$(VENV)/.ready: requirements-pipeline.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: install Python 3.11, or run make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "setting up $(VENV) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet -r requirements-pipeline.txt
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --no-deps -e .
	@touch $@

$(JARS)/.ready: config/spark-jars.ivy.xml | $(VENV)/.ready
	@command -v java >/dev/null || { echo "java not found: install a Java 17 runtime, as openjdk-17-jre-headless"; exit 1; }
	@$(BIN)/python -m pipelines.jars --dir $(JARS)
	@touch $@

$(JARS)/.s3-ready: config/spark-jars.ivy.xml $(wildcard java/*/*.java) | $(VENV)/.ready
	@$(BIN)/python -m pipelines.jars --conf s3 --dir $(JARS)
	@touch $@

$(JARS)/.kafka-ready: config/spark-jars.ivy.xml | $(VENV)/.ready
	@$(BIN)/python -m pipelines.jars --conf kafka broker --dir $(JARS)
	@touch $@

backfill: setup ## the main job, offline: the sample lake in data/sample_lake (ASSETS=…, DAYS=…)
	@$(BIN)/lakehouse backfill --provider sample --assets $(ASSETS) --days $(DAYS)
	@echo "look around with: $(BIN)/lakehouse status"

stream-demo: kafka ## streaming at work, offline: broker, replay, job, lag and bars as they land (SECONDS=…, DEMO_ARGS=--keep)
	@$(BIN)/python scripts/stream_demo.py --seconds $(SECONDS) $(DEMO_ARGS)

test: s3 kafka ## every test but the long fault runs
	@$(BIN)/python -m pytest -m "not soak" --numprocesses 2 --max-worker-restart 0 $(PYTEST_ARGS)

soak: s3 kafka ## the long fault runs
	@$(BIN)/python -m pytest -m soak --timeout 3600 $(PYTEST_ARGS)

lint: setup ## ruff, mypy and sqlfluff
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@cd dbt && ../$(BIN)/sqlfluff lint --disable-progress-bar --nocolor models tests

bench: setup .venv-bench/.ready ## the benchmarks beside their references; writes docs/benchmarks.md
	@$(BIN)/python -m benchmarks --write

# The references get an environment of their own: what they need is none of the product's business.
.venv-bench/.ready: benchmarks/requirements.txt requirements-pipeline.txt | $(VENV)/.ready
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .venv-bench
	@VIRTUAL_ENV=$(CURDIR)/.venv-bench $(BIN)/uv pip install --quiet -r benchmarks/requirements.txt
	@touch $@

pins: ## resolve requirements-pipeline.in into requirements-pipeline.txt
	@$(BIN)/uv pip compile --quiet --no-header --no-annotate --python-version 3.11 requirements-pipeline.in -o requirements-pipeline.txt

clean: ## remove caches, not data
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis build
