# Every target sets up .venv by itself; nothing else has to be installed but Python >= 3.11.
#   make demo        phantoms to synthetic scans, with a report
#   make test        formatter, linter, type checker, import rules, tests
# Overridable: PYTHON, TORCH_INDEX (where a CPU-only Linux finds torch without CUDA), PIPFLAGS, DEMO.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
PIPFLAGS ?=
DEMO ?= demo

# PyPI's Linux wheels of torch carry 2.7 GB of CUDA. A Linux without an NVIDIA driver is sent to the CPU wheels.
ifeq ($(shell uname -s),Linux)
ifeq ($(shell command -v nvidia-smi),)
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
endif
endif
TORCH_FLAGS := $(if $(TORCH_INDEX),--retries 1 --extra-index-url $(TORCH_INDEX))

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH := $(shell sed -n 's/^torch==/torch==/p' constraints.txt)

.PHONY: help setup dev demo test test-slow test-gpu lint format bench docs check-dicom clean

help:
	@sed -n 's/^#   //p' Makefile

.venv/torch: constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) install -q --no-deps $(TORCH_FLAGS) $(PIPFLAGS) $(TORCH)
	@touch $@

.venv/core: .venv/torch pyproject.toml
	$(PIP) install -q -c constraints.txt $(PIPFLAGS) -e .
	@touch $@

.venv/dev: .venv/core
	$(PIP) install -q -c constraints.txt $(PIPFLAGS) -e '.[dev]'
	@touch $@

setup: .venv/core
dev: .venv/dev

demo: .venv/core
	$(BIN)/tomogen demo $(DEMO)

lint: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell src docs tests README.md CONTRIBUTING.md CHANGELOG.md
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/pytest -n 2

test-slow: .venv/dev
	$(BIN)/pytest -m slow --timeout=3600

test-gpu: .venv/dev
	$(BIN)/pytest -m gpu --timeout=1800

check-dicom: .venv/dev
	$(BIN)/pytest -m 'slow or not slow' -rs tests/test_dicom_out.py

bench: .venv/dev
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

docs: .venv/dev
	$(BIN)/sphinx-build -q -W -b html docs docs/_build/html
	@echo docs/_build/html/index.html

format: .venv/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis
