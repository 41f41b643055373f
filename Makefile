# `make` alone prints what there is.
VENV   ?= .venv
PYTHON ?= python3
BIN    := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo test benchmark soak lint check schemas docs accept sandbox build clean

help: ## print the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed (make PYTHON=python3.12 …)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

setup: $(VENV)/installed ## make the virtual environment and install everything into it

demo: setup ## plan, apply and drift, then a key's whole life, on the embedded sandbox and a real OpenBao
	@$(BIN)/python -m tests.demo

test: setup ## run the tests
	$(BIN)/python -m pytest -n auto

lint: setup ## formatting, ruff and mypy strict
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

soak: setup ## run the long tests: every fault at every request, a kill at every request, large fuzzing
	RECONCILE_SOAK=1 $(BIN)/python -m pytest -m soak -n auto

check: lint ## lint and test, with branch coverage
	$(BIN)/python -m pytest -n auto --cov --cov-report=term-missing:skip-covered

benchmark: setup ## measure speed and memory at size against a sandbox in another process
	$(BIN)/python benchmarks/run.py

schemas: setup ## write schemas/ anew from the kinds, the catalogue and core/published.py
	for name in spec plan report apply verify keys baseline check problems validation; do \
		$(BIN)/reconcile schema $$name > schemas/$$name.schema.json || exit 1; done

docs: setup ## write the generated pages anew and build the documentation into site/, strictly
	$(BIN)/python -m docs.generate
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

accept: setup ## take what the case folders give now as right; then read the diff
	RECONCILE_ACCEPT=1 $(BIN)/python -m pytest -q tests/test_cases.py

sandbox: setup ## serve the sandbox with the subaccounts of specs/prod.yaml on port 8080
	$(BIN)/reconcile sandbox start specs/prod.yaml

build: setup ## build the wheel and the source distribution
	$(BIN)/python -m build --outdir dist .

clean: ## remove what was built
	rm -rf $(VENV) dist site .demo .benchmarks .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis
