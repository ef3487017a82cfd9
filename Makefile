# ECG-SMART-NET reproduction. `make help` lists all targets.
STUDY ?= params/demo.yaml
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
DATA_DIR ?=
ECG ?=
RUN ?=
FILE ?=
OUTPUTS ?=
ROTATION ?=
GPUS ?= $(shell nvidia-smi -L 2>/dev/null | wc -l)
JOBS_PER_GPU ?= 1
CPU ?=
CPU_INDEX ?= https://download.pytorch.org/whl/cpu
ARGS ?=

PYTHON := .venv/bin/python
READY := .venv/.ready
PIP := $(PYTHON) -m pip install -q --disable-pip-version-check
CUDA := torch|torchvision|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+
# The notebooks' kernel and Snakemake's jobs must be those of .venv, whatever else is on the PATH.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONHASHSEED := 0
export CUBLAS_WORKSPACE_CONFIG := :4096:8
# A batch's buffers are kept for the next one, in one arena: a quarter more ECGs a second.
export MALLOC_MMAP_THRESHOLD_ := 33554432
export MALLOC_TRIM_THRESHOLD_ := 200000000
export MALLOC_ARENA_MAX := 1

export ECGLIB_OUTPUTS ?= $(OUTPUTS)

KNOWN := STUDY CORES DATA_DIR OUTPUTS ROTATION GPUS JOBS_PER_GPU ECG RUN FILE ARGS PYTHON CPU CPU_INDEX
$(foreach given,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(given)))),$(if $(filter $(given),$(KNOWN)),,\
  $(error $(given) is not a variable of this Makefile; its variables are $(KNOWN)))))
WORKFLOW = --study "$(STUDY)" --data-dir "$(DATA_DIR)" --cores $(CORES) --gpus $(GPUS) --jobs-per-gpu $(JOBS_PER_GPU)
HEAVY := kills slurm browser simulations fuzzing
TESTS := units notebooks slow $(HEAVY) planted gpu

.PHONY: help reproduce plan status explain weights test test-all $(TESTS:%=test-%) lint lab format supplement keep
.PHONY: check-reference clean

help:  ## list all targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 18
	@echo
	@echo "The demo takes about 8 minutes and 0.3 GB on 2 cores; for another study, see plan."
	@echo
	@echo "reproduce, plan and status take STUDY=params/x.yaml (now $(STUDY)), CORES=n (now $(CORES)),"
	@echo "  DATA_DIR=folder with the data, OUTPUTS=folder for results (also of explain),"
	@echo "  GPUS=n to distribute runs over (now $(GPUS)), JOBS_PER_GPU=n runs side by side"
	@echo "  on each (now $(JOBS_PER_GPU)), ARGS=further options for Snakemake"
	@echo "CPU=1 with the first command: PyTorch without CUDA; lab takes ARGS=further options for JupyterLab"
	@echo "parts of test-all: $(TESTS:%=test-%)"
	@echo "explain takes ECG=file (now $(if $(ECG),$(ECG),a simulated ECG)), RUN=a run's folder or a study (now $(if $(RUN),$(RUN),the networks on this machine))"

# On Linux x86-64 the exact versions of the lock, with CPU=1 without what is there for CUDA; elsewhere the ranges of
# pyproject.toml.
$(READY): requirements.lock pyproject.toml
	@python3 -c 'import sys; v = sys.version_info; sys.exit(None if (3, 11) <= v[:2] <= (3, 13) else f"Python 3.11 to 3.13 is needed; python3 is {v[0]}.{v[1]}")'
	@echo "Installing into .venv (a few minutes, once)"
	@test -x $(PYTHON) || python3 -m venv .venv
	@if [ "$$(uname -sm)" != "Linux x86_64" ]; then $(PIP) -e '.[dev]' ; \
	elif [ "$(CPU)" = 1 ]; then \
	  grep -E '^(torch|torchvision)==' requirements.lock > .venv/torch.lock && \
	  grep -vE '^($(CUDA))==' requirements.lock > .venv/others.lock && \
	  $(PIP) --no-deps --index-url "$(CPU_INDEX)" -r .venv/torch.lock && \
	  $(PIP) -r .venv/others.lock && $(PIP) --no-deps -e . ; \
	else $(PIP) -r requirements.lock && $(PIP) --no-deps -e . ; fi
	@touch $@

# The demo is there to see everything run: it takes over none of the results that are kept to be read.
reproduce plan: FRESH ?= $(if $(filter demo params/demo.yaml,$(STUDY)),--fresh)
reproduce: $(READY)  ## run a whole study: notebooks, tables, figures; prints one line per step
	@$(PYTHON) -m ecglib.study run $(WORKFLOW) $(FRESH) -- $(ARGS)

plan: $(READY)  ## what `make reproduce` would run and why, how long it takes and how much disk it needs
	@$(PYTHON) -m ecglib.study run $(WORKFLOW) $(FRESH) -- --dry-run $(ARGS)

status: $(READY)  ## which steps of a study are done, running or failed
	@$(PYTHON) -m ecglib.study status --study "$(STUDY)"

explain: $(READY)  ## explain one ECG on one page (10 s): ECG=file RUN=folder of a run, or a study
	@$(PYTHON) -m ecglib.study explain --ecg "$(ECG)" --run "$(RUN)"

weights: $(READY)  ## the authors' published network as a run for `make explain`: FILE=ecgsmartnet_omi_….pt
	@$(PYTHON) -m ecglib.study weights "$(FILE)"

test: test-units test-notebooks  ## unit tests, the smoke study, and every notebook with nbval

test-all: $(READY)  ## all tests: also killed processes, Slurm, browser, simulations, fuzzing, GPU; ends with a summary
	@mkdir -p logs; for part in $(TESTS); do echo "=== $$part"; \
	  $(MAKE) --no-print-directory test-$$part 2>&1 | tee logs/test-$$part.log; done; \
	echo "=== summary"; for part in $(TESTS); do \
	  printf '%-12s %s\n' $$part "$$(grep -vE '^make|^ *$$' logs/test-$$part.log | tail -n 1)"; \
	  grep -E '^(FAILED|ERROR|SKIPPED)' logs/test-$$part.log | sed 's/^/  /'; done; \
	! grep -qE '^make.*\*\*\*' $(TESTS:%=logs/test-%.log)

# Two workers, each with one thread and about 1 GB; files go to them in the order of the listing.
PYTEST = OMP_NUM_THREADS=1 $(PYTHON) -m pytest -rfEs
NBVAL = --nbval-lax --nbval-current-env --nbval-kernel-startup-timeout 120 --nbval-cell-timeout 300
WORKERS = -n 2 --dist loadfile --no-loadscope-reorder

test-units: $(READY)
	$(PYTEST) $(WORKERS) -m "$(foreach part,$(HEAVY),not $(part) and) not slow" tests

test-notebooks: $(READY)
	$(PYTEST) $(WORKERS) $(NBVAL) notebooks

test-slow $(HEAVY:%=test-%): test-%: $(READY)
	$(PYTEST) -m $* tests

# faults in scientific lines, one by one: a test must catch each
test-planted: $(READY)
	$(PYTHON) -m tests.system.planted_faults

# without a GPU it says so, with code 77
test-gpu: $(READY)
	$(PYTHON) -m tests.system.gpu || test $$? = 77

lint: $(READY)  ## ruff, layered imports, size of the code, notebooks without outputs
	$(PYTHON) -m ruff check . && $(PYTHON) -m ruff format --check .
	$(PYTHON) -m nbstripout --verify --keep-id --extra-keys "metadata.language_info" notebooks/*.ipynb
	PYTHONPATH=. .venv/bin/lint-imports --no-cache --no-logo
	$(PYTHON) -m benchmarks.size

format: $(READY)  ## format code with ruff and clear notebooks with nbstripout
	$(PYTHON) -m ruff check --fix . ; $(PYTHON) -m ruff format .
	$(PYTHON) -m nbstripout --keep-id --extra-keys "metadata.language_info" notebooks/*.ipynb

lab: $(READY)  ## JupyterLab on localhost, with its token
	$(PYTHON) -m jupyter lab --ip=127.0.0.1 --notebook-dir=. $(if $(filter 0,$(shell id -u)),--allow-root) $(ARGS) notebooks/start_here.ipynb

supplement: $(READY)  ## the reference results as a website in supplement/_build/html
	@echo "[1/2] collecting the reference results"
	@rm -rf supplement/_build && $(PYTHON) supplement/collect.py
	@echo "[2/2] building the pages (about a minute)"
	@$(PYTHON) -m sphinx -q -W --keep-going -b html -c supplement supplement/_build/source supplement/_build/html
	@echo "Open supplement/_build/html/index.html"

keep: $(READY)  ## copy a study's results to outputs/reference, to be committed
	@$(PYTHON) supplement/reference.py keep "$(STUDY)"

# with ROTATION=k one run of each model instead of the whole study
ONE = $(if $(ROTATION),"$(STUDY)" --rotation $(ROTATION))
check-reference: $(READY)  ## run a study again, or only its ROTATION=k, and compare it with the reference results
	@$(PYTHON) -m ecglib.study run $(WORKFLOW) --fresh -- $(if $(ONE),--force $$($(PYTHON) supplement/reference.py runs $(ONE)),--forceall) $(ARGS)
	@$(PYTHON) supplement/reference.py check $(or $(ONE),"$(STUDY)")

clean:  ## remove unfinished results of interrupted runs
	rm -rf outputs/*/*.partial outputs/*/runs/*/*.partial outputs/*/grid/*/*/*.partial data/cohorts/*.partial
