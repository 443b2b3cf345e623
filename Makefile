# `make report` builds the default study's report, `make test` passes the tests; both set everything up first.
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
READY := $(VENV)/ready
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
SOURCES := src tests workflow/scripts benchmarks slurm/restart

.PHONY: report report-all new-study quick test test-all test-slow test-cluster check benchmark lint format docs lock setup

report: $(READY)
	snakemake

# The digits study with every method of the paper.
report-all: $(READY)
	snakemake --configfile config/config.yaml config/digits_all.yaml --

# Looks at a folder of images and writes config/NAME.yaml: make new-study IMAGES=data/birds NAME=birds
new-study: $(READY)
	@test -n "$(IMAGES)" -a -n "$(NAME)" || { echo "usage: make new-study IMAGES=data/birds NAME=birds"; exit 1; }
	@python -m augbench.jobs.new_study "$(IMAGES)" "$(NAME)" $(if $(FOLDERS),--folders $(FOLDERS))

# Three tiers; what belongs to which stands in tests/conftest.py. Each uses up to four cores by itself.
PYTEST := pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# After each change: format, lint without types, and all tests that need no trained model and start no process.
quick: style
	$(PYTEST) -m "not middle and not slow" tests/unit

# Every stage and every promise once for real.
test: $(READY)
	$(PYTEST) -m "not slow" tests/unit tests/workflow

# Everything: the above, and what takes long.
test-all: test
	$(MAKE) test-slow

# What `make test` leaves out. A SLURM cluster with fake GPUs is started on this machine, and pages are opened in Debian's
# Chromium; skipped where root or the packages are missing. With CI=true root installs them.
test-slow: $(READY)
	$(PYTEST) -m slow tests/unit tests/workflow tests/browser tests/cluster/test_runs.py

# All tests on the cluster, also those that injure it: about an hour.
test-cluster: $(READY)
	pytest tests/cluster

# Compares the results of `make report` with what was planted in the digits world.
check: $(READY)
	pytest tests/study

# Against what a user would do otherwise, as ratios measured in one run, and memory at scale. benchmarks/full_size.py takes
# longer and up to 20 GiB: not part of this.
benchmark: $(READY)
	python benchmarks/diffusion.py
	python benchmarks/classifier.py
	python benchmarks/retrieval.py search
	python benchmarks/retrieval.py pool
	python benchmarks/audit.py hashing
	python benchmarks/audit.py search

lint: style types

.PHONY: style types
style: $(READY)
	ruff format --check $(SOURCES)
	ruff check $(SOURCES)
	snakefmt --check Snakefile workflow/rules
	snakemake --lint

# Which rules are checked stands in pyproject.toml.
types: $(READY)
	basedpyright

format: $(READY)
	ruff format $(SOURCES)
	ruff check --fix $(SOURCES)
	snakefmt Snakefile workflow/rules

docs: $(READY)
	python -c "from augbench.study.reference import markdown; print(markdown(), end='')" > config/README.md
	python -c "from augbench.study.reference import json_schema; print(json_schema(), end='')" > config/schema.json

lock: $(READY)
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-annotate --no-header --quiet --output-file requirements.lock
	$(MAKE) envs/augbench.yaml

# Snakemake copies the file elsewhere before conda reads it, so it cannot point to the lock: it holds the same pins.
envs/augbench.yaml: requirements.lock
	printf '%s\n' '# Made from requirements.lock by `make lock`, for `snakemake --sdm conda`.' 'channels: [conda-forge]' \
		'dependencies:' '  - python=3.11' '  - pip' '  - pip:' > $@
	sed -n "s/^\([A-Za-z0-9._-]*==[^ ]*\)\( ; .*\)\{0,1\} \\\\$$/      - \"\1\2\"/p" $< >> $@

setup: $(READY)

# uv installs the lock in half a minute where pip takes several; it comes from the lock itself. Compiled modules
# spare each of a study's hundred processes seconds of imports, also where Python may not write them itself.
$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "augbench needs Python 3.11 or 3.12; give its path: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > $(VENV)/uv.txt
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv.txt
	$(VENV)/bin/uv pip install --quiet --compile-bytecode --python $(VENV)/bin/python --require-hashes -r requirements.lock
	$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --no-deps --no-build-isolation -e .
	@touch $@
