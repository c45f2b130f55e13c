# `make help` lists the targets. PYTHON=/path/to/python3.12 chooses the interpreter of .venv.
.DEFAULT_GOAL := help
.PHONY: help setup run up test check bench format clean
# Airflow takes two to three times as long to import where Python may not keep bytecode.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
PIPELINE ?= web_service
WORKERS ?= 3

help: ## Show this
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## */  make \1\t/' | expand -t 18

setup: ## Install everything into .venv; does nothing when that is done
	@scripts/setup.sh

run: setup ## Run pipelines/web_service.yaml (or PIPELINE=..., ARGS="--param name=shop") on an embedded Airflow, to a healthy service
	@$(BIN)/taxiway run $(PIPELINE) $(ARGS)

up: setup ## Start Airflow with its UI, until Ctrl-C
	@$(BIN)/taxiway up

# The tests that share one Airflow stay in one worker, which mostly waits: see tests/conftest.py.
test: setup ## Run all tests that this machine can run; ends with what was skipped and why (ARGS="-k name" chooses)
	@$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

check: setup ## Format, lint, types, import contracts, specs, schema, constraints
	@scripts/check.sh

bench: setup ## Measure, and write docs/performance.md (about an hour; ARGS="--quick" for a smoke test, ARGS="--only check")
	@$(BIN)/python bench/all.py $(ARGS)

format: setup ## Format and mend what can be mended
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean: ## Remove .venv, caches and builds; keeps .taxiway (runs, services)
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage dist build
	@find src operators tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
