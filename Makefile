# Two commands for a new machine with Python >= 3.10 and make: `make demo` and `make test`. Both set up .venv by themselves.

VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install -qq --progress-bar off -c constraints.txt

# Tests run side by side, so each keeps to one thread; a model hub out of reach must not cost a timeout.
ONE := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 NO_MKDOCS_2_WARNING=1

.PHONY: help demo test lint types floors docs check reproductions faces format clean
.NOTPARALLEL:

help:
	@echo "make demo    train a plain and a balanced model on built-in synthetic data, and compare them"
	@echo "make test    every check: style, types, floors, docs, tests (each also alone: lint types floors docs check)"
	@echo "make reproductions  every table and figure of the papers at the tiny scale (an hour or more)"
	@echo "make faces   the tests of MediaPipe's faces, which need an environment of their own"
	@echo "make format  put the code into the house style"
	@echo "make clean   remove the virtual environment and what tools left behind"

demo: $(VENV)/.workbench
	$(BIN)/equipoise demo

test: lint types floors docs check
	@echo "equipoise: style, types, floors, docs and tests all passed."

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.dev
	$(BIN)/mypy

floors: $(VENV)/.dev
	$(BIN)/lint-imports --no-logo

docs: $(VENV)/.dev
	$(ONE) $(BIN)/mkdocs build --strict

check: $(VENV)/.dev
	$(ONE) $(BIN)/pytest -n $(WORKERS)

reproductions: $(VENV)/.dev
	EQUIPOISE_REPRODUCTIONS=all $(ONE) $(BIN)/pytest tests/experiments/test_reproductions.py

# MediaPipe holds numpy below 2 (and Python below 3.13), so it lies in front of everything else, which stays as it is.
faces: $(VENV)-faces/.ready
	PYTHONPATH=src $(ONE) $(VENV)-faces/bin/python -m pytest tests/features/test_face_mesh.py

format: $(VENV)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf $(VENV) $(VENV)-faces site .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

# Stamp files: a second run installs nothing until the requirements change. What tests need covers what the demo needs.
$(VENV)/.workbench: $(VENV)/.python pyproject.toml constraints.txt
	@echo "Installing equipoise with its workbench into $(VENV) (about two minutes the first time) ..."
	@$(PIP) -e ".[workbench]"
	@touch $@

$(VENV)/.dev: $(VENV)/.python pyproject.toml constraints.txt
	@echo "Installing equipoise with what its tests and docs need into $(VENV) (about two minutes the first time) ..."
	@$(PIP) -e ".[dev,docs]"
	@touch $(VENV)/.workbench $@

$(VENV)-faces/.ready: $(VENV)/.dev pyproject.toml
	@echo "Installing MediaPipe into $(VENV)-faces (about a minute) ..."
	@$(BIN)/python -m venv $(VENV)-faces
	@$(VENV)-faces/bin/python -m pip --disable-pip-version-check --no-input install -qq --progress-bar off mediapipe==0.10.21
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	    > $$($(VENV)-faces/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/zz_workbench.pth
	@touch $@

$(VENV)/.python:
	@for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.10); do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then \
	        "$$python" -m venv $(VENV) && touch $@ && exit 0; \
	        echo "equipoise: $$python cannot make a virtual environment; install its venv module (Debian: python3-venv)." >&2; \
	        exit 1; \
	    fi; \
	done; \
	echo "equipoise needs Python 3.10 or newer. Found none; install one, or name it: make PYTHON=/path/to/python3." >&2; exit 1
