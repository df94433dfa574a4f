# One pytest worker drives the shared Galaxy, one Neo4j and RabbitMQ, one OMERO: they mostly wait for
# their servers, so that two cores are enough for all, and for a fourth that runs everything else.
TEST_WORKERS ?= 4
PYTHON ?= python3
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help demo demo-full demo-omero test faults bench soak lint services galaxy clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Record a real Galaxy, ask its lineage, reanalyse: all on this machine
	@scripts/setup.sh demo
	@.venv/bin/python -m examples.demo.run

demo-full: ## The same with RabbitMQ between, and Neo4j as the lineage index
	@scripts/setup.sh demo-full
	@.venv/bin/python -m examples.demo.run --full

demo-omero: ## The same with the catalog on OMERO (OMERO_TEST_URL, else a stand-in of ours)
	@scripts/setup.sh demo-omero
	@.venv/bin/python -m examples.demo.run --omero

test: ## Install what the tests need and run all of them
	@scripts/setup.sh test
	@$(MAKE) --no-print-directory lint
	.venv/bin/python -m pytest -p tests.servers.scheduling -n $(TEST_WORKERS) --durations 15

FAULTS ?= tests/faults tests/integration/test_campaign_kills.py \
	tests/integration/test_omero_interleaved.py
faults: ## Kill commands at 20 random moments each (FAULTS=files); figures to benchmarks/RESULTS.md
	@scripts/setup.sh test
	BIOBANK_FAULT_ROUNDS=$${BIOBANK_FAULT_ROUNDS:-20} BIOBANK_FAULT_KEEP=1 BIOBANK_INTERLEAVED_EVERY=1 \
		.venv/bin/python -m pytest $(FAULTS)

bench: ## Measure speed (BENCH=--full: a million objects, BENCH=peers: AiiDA, LaminDB); keeps the figures
	@scripts/setup.sh test
	.venv/bin/python -m benchmarks $(BENCH)

lint: ## Check style and types, as `make test` does first
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

soak: ## One hour of the sync service under load with a random fault every 30 s (SOAK=--minutes N)
	@scripts/setup.sh services
	.venv/bin/python -m tests.faults.soak $(SOAK)

services: ## Run RabbitMQ and Neo4j for development until Ctrl-C; prints their addresses and accounts
	@scripts/setup.sh services
	@.venv/bin/python -m tests.servers.services

galaxy: ## The same for a Galaxy server
	@scripts/setup.sh test
	@.venv/bin/python -m tests.servers.galaxy --keep-running

clean: ## Remove what make put into this checkout (the cache folder stays)
	rm -rf .venv demo-output build dist *.egg-info .benchmarks .hypothesis \
		.pytest_cache .mypy_cache .ruff_cache
