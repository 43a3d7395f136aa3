# Every target sets up what it needs in .venv, once; a second call starts at once.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help demo test soak check format bench docs clean

help:
	@echo "make demo    run the census of Python's standard library, recorded"
	@echo "make test    run the tests"
	@echo "make soak    kill drivers at every step and at random moments, for an hour"
	@echo "make check   formatting, lint, types, layers"
	@echo "make format  rewrite the code as 'make check' wants it"
	@echo "make bench   measure the figures of bench/ beside their baselines"
	@echo "make docs    run and check what the documents say"
	@echo "make clean   remove everything that these commands made"

demo: $(VENV)/.run
	@$(BIN)/python examples/census.py
	@echo
	@echo "The run is recorded. Look at it: $(BIN)/penstock show"

test: $(VENV)/.test
	@$(BIN)/python tests/loopback_only.py $(BIN)/python -m pytest

soak: $(VENV)/.test
	@$(BIN)/python tests/loopback_only.py $(BIN)/python -m tests.faults.soak $(SOAK)

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.test
	@$(BIN)/python tests/loopback_only.py $(BIN)/python -m bench

docs: $(VENV)/.test
	@$(BIN)/python -m pytest -q tests/test_docs.py

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "Penstock needs Python 3.11 or newer; none was found (set PYTHON=...)." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Penstock needs Python 3.11 or newer; $(PYTHON) is older." >&2; exit 1; }
	@echo "Setting up $(VENV) with $(PYTHON) ..."
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# A stamp per set of packages; a changed pyproject.toml installs again.
$(VENV)/.run: pyproject.toml | $(VENV)/.made
	@$(PIP) install --editable .
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/.made
	@$(PIP) install --editable '.[test]'
	@touch $@ $(VENV)/.run

$(VENV)/.dev: pyproject.toml | $(VENV)/.made
	@$(PIP) install --editable '.[dev]'
	@touch $@ $(VENV)/.test $(VENV)/.run
