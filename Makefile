# Two commands do everything: `make demo` and `make test`. `make` alone lists them all.
#
# All of them work in one virtual environment, .venv. A stamp file records that an extra has been
# installed there; it goes stale when the metadata change, and is written only when pip succeeded.

PYTHON ?= python3
ARGS ?=
N ?= 10000
SEED ?= $(shell date +%s)

VENV := .venv
BIN := $(VENV)/bin
REPORT := demo-report
METADATA := pyproject.toml skspurious/_version.py

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test test-kernels test-kills fuzz lint clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  PYTHON=...   the Python that makes $(VENV) (3.11 or newer; now $(PYTHON))"
	@echo "  ARGS=...     passed on, as in: make test ARGS='-k group_dro -x'"

demo: $(VENV)/.stamp-plot ## digits with a colour shortcut: group table before and after, and a report
	@$(BIN)/skspurious demo --output $(REPORT) $(ARGS)

test: $(VENV)/.stamp-test ## install everything the tests need and run the whole suite
	@$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadscope $(ARGS)

test-kernels: $(VENV)/.stamp-test ## the suite as other processors compute, and on other data: an hour and more
	@$(BIN)/python tests/kernels.py -n logical --maxprocesses 8 --dist loadscope $(ARGS)

test-kills: $(VENV)/.stamp-test ## fits killed at random moments and started again, ARGS=100 of them
	@$(BIN)/python tests/common/kills.py $(ARGS)

fuzz: $(VENV)/.stamp-test ## generated inputs, N=10000 of them, by another SEED each time
	@echo "SEED=$(SEED)"
	@SKSPURIOUS_FUZZ_EXAMPLES=$(N) SKSPURIOUS_FUZZ_SEED=$(SEED) \
	    $(BIN)/python -m pytest tests/test_fuzz.py $(ARGS)

lint: $(VENV)/.stamp-lint ## ruff, format check, and mypy on the typed parts
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m mypy

clean: ## remove the virtual environment and everything generated
	rm -rf $(VENV) $(REPORT) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.stamp-venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "skspurious needs Python 3.11 or newer. PYTHON=$(PYTHON) is older or does not run:"; \
	    $(PYTHON) -V; \
	    echo "Name another one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12"; \
	    exit 1; } >&2
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.stamp-%: $(METADATA) | $(VENV)/.stamp-venv
	@echo "Installing skspurious[$*] into $(VENV); the first time takes a few minutes."
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e ".[$*]"
	@touch $@
