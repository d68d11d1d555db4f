# Needs Python 3.11, git and make; everything else is installed into .venv, pinned and hashed.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := demo
.DELETE_ON_ERROR:
.PHONY: setup demo test check fuzz bench bench-gpu bitflips lock clean

PYTHON ?= $(or $(shell command -v python3.11),python3)
VENV := .venv
BIN := $(VENV)/bin
DATA ?= sample_data/fashion_mnist
OUT ?= runs/demo
TESTS ?=
# Processes that share the files of tests; each takes some 2 GB of memory. 0: this one alone.
JOBS ?= 4
FUZZ ?= parquet=10000 recipes=5000 pictures=5000
BENCHMARKS ?= confident source infer orchestration object_store faults multilabel mosaics
UPGRADE ?=

export VIRTUAL_ENV := $(CURDIR)/$(VENV)
# Never in the home folder: an unattended machine may not have one that can be written.
export NUMBA_CACHE_DIR ?= $(CURDIR)/$(VENV)/.cache/numba
export MPLCONFIGDIR ?= $(CURDIR)/$(VENV)/.cache/matplotlib
# Without compiled modules each of the many short processes of a run compiles a thousand of them.
unexport PYTHONDONTWRITEBYTECODE
COMPILE := $(BIN)/uv pip compile --quiet --python-version 3.11 --generate-hashes \
	--no-annotate --no-header --no-emit-index-url $(UPGRADE)

setup: $(VENV)/.installed
	@:

# A venv that uv made has no pip, and one whose Python has gone does not start: both are repaired.
# The sync removes what is not listed, so uv is listed too.
$(VENV)/.synced: requirements.txt requirements-uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo "setup needs Python 3.11; '$(PYTHON)' is not. Name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip --upgrade >/dev/null
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
		--requirement requirements-uv.txt
	@cache="$${UV_CACHE_DIR:-$${XDG_CACHE_HOME:-$$HOME/.cache}/uv}"; \
		{ mkdir -p "$$cache" && test -w "$$cache"; } 2>/dev/null || export UV_CACHE_DIR=$(CURDIR)/$(VENV)/.cache/uv; \
		$(BIN)/uv pip sync --require-hashes requirements.txt requirements-uv.txt
	@touch $@

$(VENV)/.installed: $(VENV)/.synced pyproject.toml
	@$(BIN)/uv pip install --quiet --no-cache --no-index --no-deps --no-build-isolation --editable .
	@touch $@

# The last line printed is the path of the report.
demo: setup
	@$(BIN)/labelops run audit --data $(DATA) --out $(OUT) --prefect

test: setup
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(TESTS)

check: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/test_project.py

# Damaged files, recipes and pictures by the thousand; tests/fuzz has a little of it with every run.
fuzz: setup
	@$(BIN)/python -m tests.fuzz $(FUZZ)

# Those that need nothing but this checkout; efficacy.py needs data sets, see benchmarks/data.py.
bench: setup
	@for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python benchmarks/$$name.py; done

# Nine minutes at most on a GPU; without one it says so. Fails where a GPU answers otherwise than the CPU.
bench-gpu: setup
	@$(BIN)/python benchmarks/gpu.py

# 400 flipped bits in finished and unfinished runs; some ten minutes.
bitflips: setup
	@$(BIN)/python benchmarks/bitflips.py

# Keeps the pins that still fit; `make lock UPGRADE=--upgrade` looks for newer ones.
lock: setup
	$(COMPILE) --output-file requirements-uv.txt requirements-uv.in
	$(COMPILE) --output-file requirements.txt requirements-dev.in

clean:
	rm -rf runs .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis
