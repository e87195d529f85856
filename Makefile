# What people type; `make help` lists it.
#
# Variables: PYTHON (a Python 3.11), VENV (where the environment goes),
# INSTALLER (uv, or pip: one tool fewer, but slower), PYTEST_FLAGS, DEMO_FLAGS
# (such as --port=8080), FUZZ_FLAGS.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3.11
VENV ?= .venv
INSTALLER ?= uv
PYTEST_FLAGS ?= -q -n 2 --dist loadfile --no-loadscope-reorder
UV_VERSION := 0.13.9

QUICKSTART := runs/quickstart

BIN := $(VENV)/bin
BASE_STAMP := $(VENV)/.requirements.stamp
TEST_STAMP := $(VENV)/.requirements-test.stamp
VERIFY := $(sort $(wildcard benchmarks/verify_*.py))

.PHONY: help
help:
	@echo 'make quickstart  environment, sample media, training, search'
	@echo 'make demo        a page that searches what the quickstart made'
	@echo 'make venv        the environment alone: requirements.txt in $(VENV)'
	@echo 'make test        every test'
	@echo 'make lint        style, layout, and BUILD against the imports'
	@echo 'make verify      the long checks, benchmarks/verify_*.py'
	@echo 'make fuzz        ten minutes of damaged and odd inputs'
	@echo 'make regenerate  writes BUILD and the table of README.md anew'
	@echo 'make lock        writes requirements*.txt anew from setup.cfg'
	@echo 'make clean       removes what these commands made'

# Checks that PYTHON is a 3.11 that can make environments, and makes one.
$(BIN)/python:
	@version=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' \
	    2>/dev/null) || version='not there'; \
	if [ "$$version" != 3.11 ]; then \
	  echo 'vatt_tf needs Python 3.11: it is the newest version for which' \
	    'tensorflow-text 2.17 has wheels.' \
	    "Received: PYTHON=$(PYTHON), which is $$version." >&2; \
	  echo 'Install it (Debian and Ubuntu: `apt-get install python3.11' \
	    'python3.11-venv`; elsewhere: `uv python install 3.11`) and name it:' \
	    '`make $(or $(MAKECMDGOALS),venv) PYTHON=/path/to/python3.11`.' >&2; \
	  exit 1; \
	fi; \
	if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
	  echo '`$(PYTHON) -m venv` does not work: the venv module is not whole.' \
	    'Install it (Debian and Ubuntu: `apt-get install' \
	    'python3.11-venv`).' >&2; \
	  exit 1; \
	fi
	$(PYTHON) -m venv $(VENV)

check_version = $(BIN)/python -c 'import sys; sys.version_info[:2] == (3, 11) \
  or sys.exit("`$(VENV)` holds another Python than 3.11: `make clean`.")'

# $(call install,REQUIREMENTS): the lock, then vatt_tf itself, in place.
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check
ifeq ($(INSTALLER),uv)
  UV := $(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python
  install = $(PIP) uv==$(UV_VERSION) && $(UV) -r $(1) \
    && $(UV) --no-deps --no-build-isolation -e .
else ifeq ($(INSTALLER),pip)
  install = $(PIP) -r $(1) && $(PIP) --no-deps --no-build-isolation -e .
else
  $(error `INSTALLER` must be uv or pip. Received: INSTALLER=$(INSTALLER))
endif

$(BASE_STAMP): requirements.txt setup.cfg pyproject.toml | $(BIN)/python
	@$(check_version)
	@echo 'Installing $< into $(VENV) with $(INSTALLER) ...'
	@start=$$SECONDS; $(call install,$<); \
	echo "Installed in $$((SECONDS - start)) s."
	@touch $@

$(TEST_STAMP): requirements-test.txt setup.cfg pyproject.toml | $(BIN)/python
	@$(check_version)
	@echo 'Installing $< into $(VENV) with $(INSTALLER) ...'
	@start=$$SECONDS; $(call install,$<); \
	echo "Installed in $$((SECONDS - start)) s."
	@touch $@ $(BASE_STAMP)

.PHONY: venv venv-test
venv: $(BASE_STAMP)
venv-test: $(TEST_STAMP)

# The time at which the command was typed, so that the install is counted.
.PHONY: quickstart
quickstart: export VATT_TF_STARTED := $(shell date +%s)
quickstart: venv
	$(BIN)/python -m vatt_tf.quickstart

# The page over the held-out clips of the quickstart.
.PHONY: demo
demo: venv
	@test -d $(QUICKSTART)/index || \
	  { echo "There is no $(QUICKSTART)/index: type \`make quickstart\` first."; \
	  exit 1; }
	$(BIN)/python -m vatt_tf.search serve --index=$(QUICKSTART)/index \
	  --saved_model=$(QUICKSTART)/saved_model $(DEMO_FLAGS)

# One process at a time runs the tests of a file: some files make their own
# logical devices. In two runs, as processes slow down with what they traced;
# the longest file first, so that none is left for the end.
LATER_TESTS := tests/train_main_test.py tests/training tests/serving \
  tests/embedding tests/retrieval_index \
  $(filter-out tests/train_main_test.py,$(sort $(wildcard tests/*_test.py)))
.PHONY: test
test: venv-test
	@set -x; failed=0; \
	$(BIN)/python -m pytest $(PYTEST_FLAGS) tests \
	  $(LATER_TESTS:%=--ignore=%) || failed=1; \
	$(BIN)/python -m pytest $(PYTEST_FLAGS) $(LATER_TESTS) || failed=1; \
	exit $$failed

.PHONY: lint
lint: venv-test
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -q tests/project

# Each script writes what it found to the file that --output names, and exits
# with 1 if it is not what the README says.
.PHONY: verify
verify: venv-test
	@mkdir -p benchmarks/results
	@for script in $(VERIFY); do \
	  name=$$(basename $$script .py); \
	  echo "$$script"; \
	  $(BIN)/python -m benchmarks.$$name \
	    --output=benchmarks/results/$$name.json; \
	done

# Looks for inputs that break something; FUZZ_FLAGS such as --seconds=60.
.PHONY: fuzz
fuzz: venv-test
	$(BIN)/python -m tests.fuzz.run $(FUZZ_FLAGS)

.PHONY: regenerate
regenerate: venv-test
	$(BIN)/python tests/project/regenerate_build.py
	$(BIN)/python tests/project/regenerate_readme.py

# The second lock is held to the first, so that both name the same versions.
COMPILE = $(BIN)/uv pip compile -q --python-version 3.11 \
  --annotation-style line --custom-compile-command 'make lock' setup.cfg
.PHONY: lock
lock: $(BIN)/python
	$(PIP) uv==$(UV_VERSION)
	$(COMPILE) --extra test --extra beam --extra search -o requirements-test.txt >/dev/null
	$(COMPILE) -c requirements-test.txt -o requirements.txt >/dev/null

.PHONY: clean
clean:
	rm -rf $(VENV) runs data/generated build dist vatt_tf.egg-info \
	  .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
