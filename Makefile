# Two commands matter: `make notebooks` runs the course, `make test` proves it.  README.md explains both.
#   make notebooks PIP_ARGS="..."     arguments passed through to pip (for instance torch's CPU build)
#   make test PYTEST_ARGS="..."       arguments passed through to pytest
#   make PYTHON=/path/to/python ...   another Python, 3.11 or newer
#   make LOCK= ...                    the newest versions that pyproject.toml allows, not the locked ones

VENV := .venv
PY := $(VENV)/bin/python
PROFILE ?= tiny
PIP_ARGS ?=
PYTEST_ARGS ?=
LOCK ?= requirements.lock
# Locked and newest versions have a stamp each, so that changing between them installs.
STAMP := $(VENV)/$(if $(LOCK),installed,newest).stamp

.PHONY: help venv data notebooks publish lab test lint clean
.DELETE_ON_ERROR:

help:
	@sed -n '1,5p' Makefile

# The first Python that is new enough and can make a virtual environment; found only when one is needed.
FIND_PYTHON = for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	if "$$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
	then echo "$$python"; break; fi; done

$(STAMP): pyproject.toml $(LOCK)
	@python="$$($(FIND_PYTHON))"; \
	if [ -z "$$python" ]; then \
	  echo "pslib: needs Python 3.11 or newer with its venv module: install one, or name it with make PYTHON=/path/to/python." >&2; \
	  exit 2; fi; \
	if [ ! -x $(PY) ]; then echo "creating $(VENV) with $$python"; "$$python" -m venv $(VENV); fi
	@echo "installing (the first time takes minutes: torch is large)"
	$(PY) -m pip install --quiet $(PIP_ARGS) $(if $(LOCK),--constraint $(LOCK),--upgrade --upgrade-strategy eager) --editable ".[test]"
	@rm -f $(VENV)/*.stamp
	@touch $(STAMP)

venv: $(STAMP)

data: $(STAMP)
	$(PY) -m pslib data make --profile $(PROFILE)

# Executes copies under build/notebooks, so the working tree stays as it was, and ends in the results table and the ledger.
notebooks: data
	$(PY) -m pslib notebooks run --profile $(PROFILE)

# Executes the series and writes the outputs back into the committed notebooks.
publish: data
	$(PY) -m pslib notebooks publish --profile $(PROFILE)

lab: data
	$(PY) -m jupyterlab --notebook-dir notebooks

test: data
	$(PY) -m pytest $(PYTEST_ARGS)

lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m pslib notebooks lint

# What was trained (build/runs) stays.
clean:
	rm -rf .pytest_cache .ruff_cache .coverage
	@if [ -d build ]; then find build -mindepth 1 -maxdepth 1 ! -name runs -exec rm -rf {} +; fi
