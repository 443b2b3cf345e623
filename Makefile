# `make report` builds the default study's report, `make test` passes the tests; both set everything up first.
# The newest Python that the tests have seen goes first. One that is on the PATH may be a shim that cannot run, or a
# Debian package without venv.
USABLE := -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' >/dev/null 2>&1
FIRST = $(shell for p in $(1); do $$p $(USABLE) && echo $$p && break; done)
PYTHON ?= $(call FIRST,python3.13 python3.12 python3.11 python3.14 python3)
OLDEST ?= $(call FIRST,python3.11 python3.12 python3.13 python3.14)
VENV := .venv
READY := $(VENV)/ready
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
SOURCES := src tests workflow/scripts benchmarks examples envs slurm/restart

.PHONY: report report-all new-study cost quick test test-quick test-all test-slow test-oldest test-other test-cluster test-gpu check benchmark benchmark-gpu
.PHONY: lint style types format docs lock outdated setup

report: $(READY)
	snakemake

# The digits study with every method of the paper.
report-all: $(READY)
	snakemake --configfile config/config.yaml config/digits_all.yaml --

# Looks at a folder of images and writes config/NAME.yaml: make new-study IMAGES=data/birds NAME=birds
new-study: $(READY)
	@test -n "$(IMAGES)" -a -n "$(NAME)" || { echo "usage: make new-study IMAGES=data/birds NAME=birds"; exit 1; }
	@python -m augbench.jobs.new_study "$(IMAGES)" "$(NAME)" $(if $(FOLDERS),--folders $(FOLDERS))

# What studies will cost, before anything starts: make cost CONFIG=config/paper.yaml
cost: $(READY)
	@python -m augbench.jobs.cost $(or $(CONFIG),config/config.yaml)

# Three tiers; what belongs to which stands in tests/conftest.py. Each uses up to four cores by itself.
PYTEST := pytest --durations=10 --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# After each change: format, lint without types, and all tests that need no trained model and start no process. Style is
# checked beside the tests.
quick: $(READY)
	$(MAKE) --jobs 2 style test-quick

test-quick: $(READY)
	$(PYTEST) -m "not middle and not slow" tests/unit

# Every stage and every promise once for real.
test: $(READY)
	$(PYTEST) -m "not slow" tests/unit tests/workflow

# Everything: the above, and what takes long.
test-all: test
	$(MAKE) test-slow
	$(MAKE) test-oldest

# What `make test` leaves out. A SLURM cluster with fake GPUs is started on this machine, and pages are opened in Debian's
# Chromium; skipped where root or the packages are missing. With CI=true root installs them.
test-slow: $(READY)
	$(PYTEST) -m slow tests/unit tests/workflow tests/browser tests/cluster/test_runs.py

# The unit tests with the oldest Python on this machine, in an environment of its own, unless all tests ran with it.
test-oldest: $(READY)
	@if [ "$$($(OLDEST) -V)" = "$$(python -V)" ]; then echo "$$(python -V) is the only Python here, and tested"; \
		else $(MAKE) test-other VENV=$(VENV)-oldest PYTHON=$(OLDEST); fi

test-other: $(READY)
	$(PYTEST) -m "not slow" tests/unit

# All tests on the cluster, also those that injure it: about an hour.
test-cluster: $(READY)
	pytest tests/cluster

# Every stage on a real GPU, in eight minutes on an H100; skipped where torch sees none. All other tests hide GPUs. What
# they need beside a source checkout stands in tests/gpu/conftest.py: they can be carried to a machine without network.
test-gpu: $(READY)
	pytest tests/gpu

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

# The same for a GPU, with Stable Diffusion v1.4's architecture: five minutes on an H100.
benchmark-gpu: $(READY)
	python benchmarks/gpu.py

lint: style types

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

# What the lock holds stays where it is; `make lock UPGRADE=1` takes the newest versions that are allowed.
lock: $(READY)
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-annotate --no-header --quiet $(if $(UPGRADE),--upgrade) --output-file requirements.lock
	$(MAKE) envs/augbench.post-deploy.sh

# Snakemake copies the script elsewhere before it runs it, so the script cannot point to the lock: it ends with it.
envs/augbench.post-deploy.sh: requirements.lock
	sed '/^# The lock:$$/q' $@ > $@.new
	cat $< >> $@.new
	mv $@.new $@

# Which packages have newer versions than the lock, what holds them back, and which overrides are no longer needed.
outdated: $(READY)
	python envs/outdated.py

setup: $(READY)

# uv installs the lock in half a minute where pip takes several and would refuse the overrides of pyproject.toml; it comes
# from the lock itself. `sync` resolves nothing: what the lock does not hold goes. Compiled modules spare each of a study's
# hundred processes seconds of imports, also where Python may not write them itself.
$(READY): requirements.lock pyproject.toml
	@"$(PYTHON)" $(USABLE) || { echo "augbench needs Python 3.11 to 3.14 with its venv module, and" \
		"$(or $(PYTHON),what is here) is not that: install it, e.g. apt install python3-venv, or give its path:" \
		"make PYTHON=/path/to/python3.13"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > $(VENV)/uv.txt
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv.txt
	$(VENV)/bin/uv pip sync --quiet --compile-bytecode --python $(VENV)/bin/python --require-hashes requirements.lock
	$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --no-deps --no-build-isolation -e .
	@touch $@
