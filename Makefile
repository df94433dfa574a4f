# Two cores: one pytest worker drives the shared Galaxy, the other runs everything else.
TEST_WORKERS ?= 2
PYTHON ?= python3
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help demo test faults bench lint services clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Record a real Galaxy, ask its lineage, reanalyse: all on this machine
	@scripts/setup.sh demo
	@.venv/bin/python -m examples.demo.run

test: ## Install what the tests need and run all of them
	@scripts/setup.sh test
	@$(MAKE) --no-print-directory lint
	.venv/bin/python -m pytest -p tests.servers.scheduling -n $(TEST_WORKERS) --durations 15

faults: ## Kill commands at 20 random moments each; keeps the figures in benchmarks/RESULTS.md
	@scripts/setup.sh test
	BIOBANK_FAULT_ROUNDS=$${BIOBANK_FAULT_ROUNDS:-20} BIOBANK_FAULT_KEEP=1 \
		.venv/bin/python -m pytest tests/faults

bench: ## Measure speed (BENCH=--full: a million objects, BENCH=peers: AiiDA, LaminDB); keeps the figures
	@scripts/setup.sh test
	.venv/bin/python -m benchmarks $(BENCH)

lint: ## Check style and types, as `make test` does first
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

services: ## Run a Galaxy server for development until Ctrl-C; prints its address and keys
	@scripts/setup.sh test
	@.venv/bin/python -m tests.servers.galaxy --keep-running

clean: ## Remove what make put into this checkout (the cache folder stays)
	rm -rf .venv demo-output build dist *.egg-info .benchmarks .hypothesis \
		.pytest_cache .mypy_cache .ruff_cache
