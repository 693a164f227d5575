# `make demo` and `make test` set themselves up: the virtual environment is made when it is missing, broken
# or older than pyproject.toml, and left alone otherwise.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test bench lint types examples clean environment
.DEFAULT_GOAL := help

help:
	@echo "make demo      train, quantize, prune, distill and combine on MNIST; print one table"
	@echo "make test      run the tests"
	@echo "make bench     speed beside torch, about a quarter of an hour; see docs/performance.md"
	@echo "make lint      ruff: lint and format"
	@echo "make types     mypy"
	@echo "make clean     remove $(VENV) and what the demo wrote"

demo: $(VENV)/.run-ready
	$(BIN)/tinycompress demo

test: $(VENV)/.dev-ready
	$(BIN)/python -m pytest -n 2

# More frameworks join in where they are installed: $(BIN)/python -m pip install -e '.[peers]'
bench: $(VENV)/.bench-ready
	$(BIN)/python -m benchmarks $(BENCH)

lint: $(VENV)/.dev-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev-ready
	$(BIN)/mypy

# A virtual environment whose interpreter is gone (an upgraded Python, a moved folder) is made anew.
ifneq ($(wildcard $(BIN)/python),)
ifneq ($(shell $(BIN)/python -c 'import sys, pip; print(sys.prefix)' 2>/dev/null),$(abspath $(VENV)))
$(shell rm -rf $(VENV))
endif
endif

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "tinycompress needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "could not make $(VENV); on Debian and Ubuntu: apt install python3-venv"; exit 1; }

$(VENV)/.run-ready: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.dev-ready: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.run-ready

$(VENV)/.bench-ready: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	@touch $@ $(VENV)/.run-ready

clean:
	rm -rf $(VENV) demo
