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
AIRFLOW_PORT ?= 8080
DAG ?= full_pipeline_test
CONF ?= {}
DEMO_ARGS ?=
PYTEST_ARGS ?=
BENCH_VENV := .venv-bench
BENCH_ARGS ?=
COMPOSE_VERSION := 2.40.3
COMPOSE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/finance-lakehouse/docker-compose-$(COMPOSE_VERSION)
GO := $(or $(shell command -v go),/usr/local/go/bin/go)
SERVICES ?=

.PHONY: help setup s3 kafka backfill stream-demo airflow dag test soak lint bench pins dashboards-check compose-check up down logs local clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'

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

AIRFLOW_HERE = PATH=$(CURDIR)/$(BIN):$$PATH PYTHONDONTWRITEBYTECODE=1 AIRFLOW_HOME=$(CURDIR)/data/airflow \
  AIRFLOW__CORE__DAGS_FOLDER=$(CURDIR)/airflow/dags AIRFLOW__CORE__LOAD_EXAMPLES=false

airflow: setup ## Airflow with the DAGs on http://localhost:8080 (AIRFLOW_PORT=…), its home in data/airflow
	@echo "user admin; the password is in data/airflow/simple_auth_manager_passwords.json.generated"
	@$(BIN)/python deploy/local.py database
	@$(AIRFLOW_HERE) AIRFLOW__CORE__PARALLELISM=2 AIRFLOW__API__HOST=127.0.0.1 AIRFLOW__API__PORT=$(AIRFLOW_PORT) \
	  AIRFLOW__CORE__EXECUTION_API_SERVER_URL=http://127.0.0.1:$(AIRFLOW_PORT)/execution/ airflow standalone

dag: ## switch on and run a DAG of the Airflow that runs here (DAG=full_pipeline_test CONF='{"days": 1}')
	@test -f data/airflow/airflow.db || { echo "no Airflow here yet: make airflow, or make local, in another terminal"; exit 1; }
	@$(AIRFLOW_HERE) airflow dags unpause $(DAG) >/dev/null
	@$(AIRFLOW_HERE) airflow dags trigger $(DAG) --conf '$(CONF)' --output yaml | grep -E 'dag_id|dag_run_id|state'

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

dashboards-check: setup deploy/grafana-schema/node_modules/.ready ## Grafana dashboards by its own schema (needs Node.js, and a network the first time)
	@$(BIN)/python -m pipelines.monitoring.dashboards --check
	@node deploy/grafana-schema/check.mjs

deploy/grafana-schema/node_modules/.ready: deploy/grafana-schema/package-lock.json
	@command -v npm >/dev/null || { echo "npm not found: install Node.js 20 or newer"; exit 1; }
	@npm --prefix deploy/grafana-schema ci --silent --ignore-scripts --no-audit --no-fund
	@touch $@

up: ## all services in containers, as docker-compose.yml has them (needs Docker)
	@test -f .env || { echo "no .env: copy .env.example to .env and set the passwords in it"; exit 1; }
	@! grep -nE '^[A-Z0-9_]+=change-me' .env || { echo "set these in .env first"; exit 1; }
	@docker compose up --detach --build $(SERVICES)
	@docker compose ps

down: ## end the containers; the data stays in its volumes
	@docker compose down

logs: ## follow what the containers say (SERVICES="stream exporter")
	@docker compose logs --follow --tail 100 $(SERVICES)

local: setup ## what runs without Docker, as Procfile has it; Ctrl-C ends it
	@$(BIN)/python deploy/local.py prepare
	@$(BIN)/honcho start $(SERVICES)

# Compose's own code, without Docker: some minutes to build the first time, kept outside the checkout.
compose-check: $(COMPOSE) ## docker-compose.yml by Compose's own rules (needs Go, and a network the first time)
	@$(COMPOSE) --env-file .env.example config --quiet
	@! $(COMPOSE) --env-file /dev/null config --quiet 2>/dev/null || { echo "docker-compose.yml starts without passwords"; exit 1; }
	@echo "docker-compose.yml: good"

$(COMPOSE): deploy/compose-check/go.mod deploy/compose-check/go.sum
	@test -x "$(GO)" || { echo "go not found: install Go 1.24 or newer"; exit 1; }
	@mkdir -p $(@D)
	@cd deploy/compose-check && $(GO) build -o $@ github.com/docker/compose/v2/cmd

clean: ## remove caches, not data
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis build
