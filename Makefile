PYTHON ?= python3
BIN := .venv/bin

.PHONY: help test pytest bench lint format docker-check clean

help:  ## show this help
	@sed -n 's/^\([a-z-]*\):[^#]*## /make \1\t/p' Makefile

test: lint  ## lint, then run every test
	$(MAKE) --no-print-directory pytest

# Triton decides when it decorates whether to interpret, so interpreted tests run in a process of their own. Those of
# sharded models start processes themselves.
pytest:
	TRITON_INTERPRET=0 $(BIN)/pytest -n 2 --ignore=tests/interpreted --ignore=tests/sharded
	TRITON_INTERPRET=0 $(BIN)/pytest tests/sharded
	TRITON_INTERPRET=1 $(BIN)/pytest -n 2 tests/interpreted

bench: .venv/installed  ## run the benchmarks that have goals
	$(BIN)/gpuopt bench --quick

lint: .venv/installed  ## check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/hadolint docker/Dockerfile
	$(BIN)/shellcheck bench/*.sh docker/*.sh

format: .venv/installed  ## format and fix what can be fixed
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

docker-check:  ## build the Docker image without Docker and run it (as root)
	docker/check.sh

clean:  ## remove the environment, caches and builds
	rm -rf .venv .*_cache .hypothesis build dist out *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@
