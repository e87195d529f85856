# What people type; `make help` lists it.
#
# Variables: PYTHON (a Python of PYTHONS; else the newest that is found), VENV
# (where the environment goes), DEVICE (cpu, or gpu for the NVIDIA libraries),
# INSTALLER (uv, or pip: one tool fewer, but slower), PYTEST_FLAGS, DEMO_FLAGS
# (such as --port=8080), FUZZ_FLAGS.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The versions of Python that there are locks for, the newest first.
PYTHONS := 3.13 3.12 3.11
VENV ?= .venv
DEVICE ?= cpu
INSTALLER ?= uv
PYTEST_FLAGS ?= -q -n 2 --dist loadfile --no-loadscope-reorder
UV_VERSION := 0.13.9

QUICKSTART := runs/quickstart

BIN := $(VENV)/bin
VERIFY := benchmarks/device_check.py $(sort $(wildcard benchmarks/verify_*.py))

.PHONY: help
help:
	@echo 'make quickstart  environment, sample media, training, search'
	@echo 'make demo        a page that searches what the quickstart made'
	@echo 'make venv        the environment alone, in $(VENV); DEVICE=gpu with CUDA'
	@echo 'make test        every test'
	@echo 'make test-fast   what takes minutes: no processes, no training'
	@echo 'make test-quick  what depends most on the version of TensorFlow'
	@echo 'make lint        style, layout, and BUILD against the imports'
	@echo 'make verify      the long checks, verify_*.py and device_check.py'
	@echo 'make fuzz        ten minutes of damaged and odd inputs'
	@echo 'make regenerate  writes the generated pages and figures'
	@echo 'make lock        writes requirements-*.txt anew from setup.cfg'
	@echo 'make python      says which Python makes the environment'
	@echo 'make clean       removes what these commands made'

# $(call version_of,PROGRAM): such as 3.12, or nothing where it does not run.
version_of = $(shell $(1) -c \
  'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
# $(call find_python,VERSIONS): the first that runs, on the path or where pyenv
# and uv keep theirs. A file of that name may be a shim that refuses.
PYENV := $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions
UV_PYTHONS := $(or $(UV_PYTHON_INSTALL_DIR),$(HOME)/.local/share/uv/python)
find_python = $(shell for version in $(1); do \
    for python in python$$version $(PYENV)/$$version*/bin/python \
        $(UV_PYTHONS)/cpython-$$version.*/bin/python3; do \
      if "$$python" -c 'import sys; sys.exit("%d.%d" % \
          sys.version_info[:2] != sys.argv[1])' $$version 2>/dev/null; then \
        echo "$$python"; exit; \
      fi; \
    done; \
  done)

# Of the environment that is there, or of the Python that will make it.
OF_VENV := $(shell sed -n 's/^version *= *\(3\.[0-9]*\).*/\1/p' \
  $(VENV)/pyvenv.cfg 2>/dev/null)
ifeq ($(PYTHON)$(OF_VENV),)
  PYTHON := $(call find_python,$(PYTHONS))
endif
OF_PYTHON := $(if $(PYTHON),$(call version_of,$(PYTHON)))
VERSION := $(or $(OF_VENV),$(OF_PYTHON))

BASE_LOCK := requirements-$(VERSION).txt
TEST_LOCK := requirements-$(VERSION)-test.txt
GPU_LOCK := requirements-$(VERSION)-gpu.txt
ifeq ($(DEVICE),gpu)
  BASE_LOCK += $(GPU_LOCK)
  TEST_LOCK += $(GPU_LOCK)
else ifneq ($(DEVICE),cpu)
  $(error `DEVICE` must be cpu or gpu. Received: DEVICE=$(DEVICE))
endif
BASE_STAMP := $(VENV)/.requirements-$(DEVICE).stamp
TEST_STAMP := $(VENV)/.requirements-$(DEVICE)-test.stamp

# Ends with what to do unless the environment can be made, or is the right one.
.PHONY: check-python
check-python:
	@if [ -n '$(OF_VENV)' ]; then \
	  if [ -n '$(PYTHON)' ] && [ '$(OF_PYTHON)' != '$(OF_VENV)' ]; then \
	    echo '$(VENV) holds Python $(OF_VENV). For another, `make clean` first,' \
	      'or make a second environment: VENV=.venv-other.' \
	      'Received: PYTHON=$(PYTHON), which is' \
	      '$(or $(OF_PYTHON),not there).' >&2; \
	    exit 1; \
	  fi; \
	  if [ -z '$(filter $(OF_VENV),$(PYTHONS))' ]; then \
	    echo '$(VENV) holds Python $(OF_VENV), and vatt_tf needs one of' \
	      '$(PYTHONS): `make clean` first.' >&2; \
	    exit 1; \
	  fi; \
	elif [ -z '$(filter $(OF_PYTHON),$(PYTHONS))' ]; then \
	  echo 'vatt_tf needs Python 3.11, 3.12 or 3.13: tensorflow-text has no' \
	    'wheels for newer ones, and PyAV none for older ones.' \
	    'Received: PYTHON=$(PYTHON), which is' \
	    '$(or $(OF_PYTHON),not there).' >&2; \
	  echo 'Install it (Debian 13: `apt-get install python3.13' \
	    'python3.13-venv`; Ubuntu 24.04: python3.12; Debian 12: python3.11;' \
	    'elsewhere: `uv python install 3.13`), and if it is not found name it:' \
	    '`make $(or $(MAKECMDGOALS),venv) PYTHON=/path/to/python3.13`.' >&2; \
	  exit 1; \
	elif ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
	  echo '`$(PYTHON) -m venv` does not work: the venv module is not whole.' \
	    'Install it (Debian and Ubuntu: `apt-get install' \
	    'python$(OF_PYTHON)-venv`).' >&2; \
	  exit 1; \
	fi

$(BIN)/python: | check-python
	$(PYTHON) -m venv $(VENV)

.PHONY: python
python: check-python
	@echo '$(or $(PYTHON),$(BIN)/python)'

# Nothing, and no error, where there is no such Python: VERSIONS=3.11.
.PHONY: find-python
find-python:
	@echo '$(call find_python,$(VERSIONS))'

# $(call install,LOCKS): the locks, then vatt_tf itself, in place.
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check
ifeq ($(INSTALLER),uv)
  UV := $(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python
  install = $(PIP) uv==$(UV_VERSION) && $(UV) $(1:%=-r %) \
    && $(UV) --no-deps --no-build-isolation -e .
else ifeq ($(INSTALLER),pip)
  install = $(PIP) $(1:%=-r %) && $(PIP) --no-deps --no-build-isolation -e .
else
  $(error `INSTALLER` must be uv or pip. Received: INSTALLER=$(INSTALLER))
endif

# $(call make_environment,LOCKS)
define make_environment
	@echo 'Installing $(1) into $(VENV) with $(INSTALLER) ...'
	@start=$$SECONDS; $(call install,$(1)); \
	echo "Installed in $$((SECONDS - start)) s."
endef

$(BASE_STAMP): $(BASE_LOCK) setup.cfg pyproject.toml | $(BIN)/python
	$(call make_environment,$(BASE_LOCK))
	@touch $@

$(TEST_STAMP): $(TEST_LOCK) setup.cfg pyproject.toml | $(BIN)/python
	$(call make_environment,$(TEST_LOCK))
	@touch $@ $(BASE_STAMP)

.PHONY: venv venv-test
venv: check-python $(BASE_STAMP)
venv-test: check-python $(TEST_STAMP)

# The time at which the command was typed, so that the install is counted.
.PHONY: quickstart
quickstart: export VATT_TF_STARTED := $(shell date +%s)
quickstart: venv
	@$(BIN)/python -m vatt_tf.quickstart

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

# What tells two versions of TensorFlow apart, and takes half of the time.
QUICK_TESTS := tests/stacks tests/checkpoints tests/evaluation \
  tests/input_pipeline tests/layers tests/losses tests/models tests/project \
  tests/core/gin_utils_test.py tests/core/quiet_test.py
.PHONY: test-quick
test-quick: venv-test
	$(BIN)/python -m pytest $(PYTEST_FLAGS) $(QUICK_TESTS)

# What starts no process and trains no model, file by file.
FAST_TESTS := $(filter-out \
  tests/checkpoints/own_vatt_test.py \
  tests/input_pipeline/class_balance_test.py \
  tests/input_pipeline/images_test.py \
  tests/input_pipeline/pipeline_bad_input_test.py \
  tests/input_pipeline/pipeline_cache_test.py \
  tests/input_pipeline/pipeline_position_test.py \
  tests/input_pipeline/pipeline_test.py \
  tests/input_pipeline/service_test.py \
  tests/input_pipeline/vocabulary_test.py \
  tests/media/ingest_test.py \
  tests/media/odd_files_test.py \
  tests/models/build_test.py \
  tests/models/every_tower_test.py \
  tests/models/similarity_scale_test.py \
  tests/models/vatt_test.py \
  ,$(sort $(wildcard $(foreach package, \
    checkpoints evaluation input_pipeline layers losses media media/datasets \
    models project, tests/$(package)/*_test.py)))) \
  $(foreach name,gin_utils plain_text progress_bar randomness tensor_utils, \
    tests/core/$(name)_test.py) tests/gin_files_test.py
.PHONY: test-fast
test-fast: venv-test
	$(BIN)/python -m pytest $(PYTEST_FLAGS) $(FAST_TESTS)

.PHONY: lint
lint: venv-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
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
	$(BIN)/python tests/project/regenerate.py

# $(call lock,VERSION): the locks of a Python, which need not be here. All are
# held to the first, so that they name the same versions.
compile = $(BIN)/uv pip compile -q --python-version $(1) \
  --annotation-style line --custom-compile-command 'make lock' setup.cfg
lock_test = requirements-$(1)-test.txt
define lock
	$(call compile,$(1)) --extra test --extra beam --extra search \
	  -o $(lock_test) >/dev/null
	$(call compile,$(1)) -c $(lock_test) -o requirements-$(1).txt >/dev/null
	$(call compile,$(1)) -c $(lock_test) --extra gpu \
	  -o requirements-$(1)-gpu.txt >/dev/null

endef
.PHONY: lock
lock: $(BIN)/python
	$(PIP) uv==$(UV_VERSION)
	$(foreach version,$(PYTHONS),$(call lock,$(version)))

.PHONY: clean
clean:
	rm -rf $(VENV) runs data/generated build dist vatt_tf.egg-info \
	  .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
