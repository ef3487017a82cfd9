# ECG-SMART-NET reproduction. `make help` lists what can be made.
STUDY ?= params/demo.yaml
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
DATA_DIR ?=
ECG ?=
RUN ?=
OUTPUTS ?=
GPUS ?= $(shell nvidia-smi -L 2>/dev/null | wc -l)
ARGS ?=

PYTHON := .venv/bin/python
READY := .venv/.ready
# The notebooks' kernel and Snakemake's jobs must be those of .venv, whatever else is on the PATH.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONHASHSEED := 0
export CUBLAS_WORKSPACE_CONFIG := :4096:8
export ECGLIB_OUTPUTS ?= $(OUTPUTS)

KNOWN := STUDY CORES DATA_DIR OUTPUTS GPUS ECG RUN ARGS PYTHON
$(foreach given,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(given)))),$(if $(filter $(given),$(KNOWN)),,\
  $(error $(given) is no variable of this Makefile; there are $(KNOWN)))))
WORKFLOW = --study "$(STUDY)" --data-dir "$(DATA_DIR)" --cores $(CORES) --gpus $(GPUS)
TESTS := units notebooks slow kills slurm browser simulations fuzzing

.PHONY: help reproduce plan status explain test test-all $(TESTS:%=test-%) lint lab format supplement keep
.PHONY: check-reference clean

help:  ## list what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 18
	@echo
	@echo "reproduce, plan and status take STUDY=params/x.yaml (now $(STUDY)), CORES=n (now $(CORES)),"
	@echo "  DATA_DIR=folder with the data, OUTPUTS=folder for results (also of explain), GPUS=n to share out (now $(GPUS)), ARGS=more for Snakemake"
	@echo "parts of test-all: $(TESTS:%=test-%)"
	@echo "explain takes ECG=file (now $(if $(ECG),$(ECG),a simulated ECG)), RUN=a run's folder or a study (now $(if $(RUN),$(RUN),the networks that are here))"

# On Linux x86-64 the exact versions of the lock; elsewhere the ranges of pyproject.toml.
$(READY): requirements.lock pyproject.toml
	@python3 -c 'import sys; v = sys.version_info; sys.exit(None if (3, 11) <= v[:2] <= (3, 13) else f"Python 3.11 to 3.13 is needed; python3 is {v[0]}.{v[1]}")'
	@echo "Installing into .venv (a few minutes, once)"
	@test -x $(PYTHON) || python3 -m venv .venv
	@if [ "$$(uname -sm)" = "Linux x86_64" ]; then \
	  $(PYTHON) -m pip install -q --disable-pip-version-check -r requirements.lock && \
	  $(PYTHON) -m pip install -q --disable-pip-version-check --no-deps -e . ; \
	else $(PYTHON) -m pip install -q --disable-pip-version-check -e '.[dev]' ; fi
	@touch $@

# The demo is there to see everything run: it takes over none of the results that are kept to be read.
reproduce: export ECGLIB_FRESH := $(or $(ECGLIB_FRESH),$(if $(filter demo params/demo.yaml,$(STUDY)),1))
reproduce: $(READY)  ## run a whole study: notebooks, tables, figures
	@$(PYTHON) -m ecglib.workflow run $(WORKFLOW) -- $(ARGS)

plan: $(READY)  ## what `make reproduce` would run, and why
	@$(PYTHON) -m ecglib.workflow plan $(WORKFLOW) -- $(ARGS)

status: $(READY)  ## what of a study is done, running, failed
	@$(PYTHON) -m ecglib.workflow status $(WORKFLOW)

explain: $(READY)  ## explain one ECG on one page: ECG=file RUN=folder of a run, or a study
	@$(PYTHON) -m ecglib.explain --ecg "$(ECG)" --run "$(RUN)"

test: $(READY)  ## unit tests, the smoke study, and every notebook with nbval
	$(PYTHON) -m pytest -m "not slow"
	ECGLIB_OFFLINE=1 $(PYTHON) -m pytest --nbval-lax --nbval-current-env --nbval-kernel-startup-timeout 120 --nbval-cell-timeout 300 notebooks

test-all: $(READY)  ## all tests: also kills, Slurm, browser, simulations, fuzzing
	@$(PYTHON) tests/all.py

$(TESTS:%=test-%): test-%: $(READY)
	@$(PYTHON) tests/all.py $*

lint: $(READY)  ## ruff on code and notebooks, and notebooks without outputs
	$(PYTHON) -m ruff check . && $(PYTHON) -m ruff format --check .
	$(PYTHON) -m nbstripout --verify --keep-id --extra-keys "metadata.language_info" notebooks/*.ipynb

format: $(READY)  ## let ruff and nbstripout tidy up
	$(PYTHON) -m ruff check --fix . ; $(PYTHON) -m ruff format .
	$(PYTHON) -m nbstripout --keep-id --extra-keys "metadata.language_info" notebooks/*.ipynb

lab: $(READY)  ## JupyterLab on localhost, with its token
	$(PYTHON) -m jupyter lab --ip=127.0.0.1 --notebook-dir=. notebooks/start_here.ipynb

supplement: $(READY)  ## the reference results as a web site in supplement/_build/html
	@rm -rf supplement/_build && $(PYTHON) supplement/collect.py && $(PYTHON) -m sphinx -q -W --keep-going -b html -c supplement supplement/_build/source supplement/_build/html
	@echo "Open supplement/_build/html/index.html"

keep: $(READY)  ## copy a study's results to outputs/reference, to be read and committed
	@$(PYTHON) supplement/reference.py keep "$(STUDY)"

check-reference: $(READY)  ## run a study anew and compare its tables with the reference results
	@ECGLIB_FRESH=1 $(MAKE) --no-print-directory reproduce ARGS="--forceall $(ARGS)"
	@$(PYTHON) supplement/reference.py check "$(STUDY)"

clean:  ## remove what runs left half-finished
	rm -rf outputs/*/*.partial outputs/*/runs/*/*.partial outputs/*/grid/*/*/*.partial data/cohorts/*.partial
