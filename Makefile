# Everything happens in the checkout: a virtualenv for each Python version, and pip's cache.
#
#   make demo                        the main job, on real services started on this machine
#   make test                        the checks and the tests (ARGS="-k nursery" picks some)
#   make test-slurm                  the tests on a real SLURM, started on this machine
#   make test-frontend               all tests of a frontend over SSH, the longer ones too
#   make check                       ruff and mypy
#   make bench                       beside the published package (CASES="a b" ROUNDS=5 OUTPUT=dir)
#   make soak                        load while services are killed (MINUTES=10 SEED=7 NURSERY=trio)
#   make clean                       removes what the others made
#   make test PYTHON=python3.13      any of them, on another Python

PYTHON ?= python3
ARGS ?=
CASES ?=
ROUNDS ?= 5
OUTPUT ?=
MINUTES ?= 10
SEED ?=
NURSERY ?=

ifneq ($(MAKECMDGOALS),clean)
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
ifeq ($(VERSION),)
$(error $(PYTHON) does not run; name a Python of version 3.10 or later: make PYTHON=python3.12)
endif
endif

VENV := .venv-$(VERSION)
BENCH := .venv-bench-$(VERSION)
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --quiet --disable-pip-version-check

export PIP_CACHE_DIR ?= $(CURDIR)/.cache/pip
unexport PYTHONPATH PYTHONHOME

.PHONY: demo test test-slurm test-frontend check bench soak clean
.NOTPARALLEL:
.DELETE_ON_ERROR:

demo: $(VENV)/for-demo
	@$(RUN) -m seamless_remote.demo

test: check
	$(RUN) -m pytest -n 4 $(ARGS)

# Three at a time, each worker on a SLURM of its own.
test-slurm: $(VENV)/for-test
	$(RUN) -m pytest -n 3 tests/slurm $(ARGS)

test-frontend: $(VENV)/for-test
	$(RUN) -m pytest -n 4 -m "longer or not longer" tests/frontend $(ARGS)

check: $(VENV)/for-test
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy --strict seamless_remote

# The published package comes compiled: so is this one, even under PYTHONDONTWRITEBYTECODE.
bench: $(BENCH)-ours/made $(BENCH)-published/made
	@$(PYTHON) -m compileall -q seamless_remote
	@$(PYTHON) -m benchmarks --rounds $(ROUNDS) $(if $(OUTPUT),--output $(OUTPUT)) $(CASES)

soak: $(VENV)/for-test
	@cd tests && $(CURDIR)/$(RUN) -m soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(if $(NURSERY),--nursery $(NURSERY))

clean:
	rm -rf .venv-* .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A changed pyproject.toml makes the virtualenv anew, so that nothing in it is left from before.
$(VENV)/made: pyproject.toml
	@echo "Making $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or later is needed: make PYTHON=python3.12")'
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(BENCH)-ours/made $(BENCH)-published/made: pyproject.toml
	@echo "Making $(@D)" >&2
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python -m pip -qq --disable-pip-version-check install $(PACKAGES)
	@touch $@

$(BENCH)-ours/made: PACKAGES = --editable '.[services,daskserver]'

# With the services and the Dask that this package has in its extras.
$(BENCH)-published/made: PACKAGES = seamless-remote==0.4.0 hashserver==1.1.0 'aiofiles>=23' \
	seamless-database==2.1.0 seamless-jobserver==0.3.0 seamless-transformer==0.6.1 \
	seamless-dask==0.4 'distributed>=2024.1'

$(VENV)/for-demo: $(VENV)/made
	@echo "Installing what the demo needs into $(VENV)"
	@$(PIP) install --editable '.[services,daskserver]'
	@touch $@

$(VENV)/for-test: $(VENV)/made
	@echo "Installing what the tests need into $(VENV)"
	@$(PIP) install --editable '.[dev,daskserver]'
	@touch $@
