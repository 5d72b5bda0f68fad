# `make bootstrap` and `make test` are all that a newcomer needs; the rest is for those who change sgprov.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: bootstrap test test-all attack faults check format docs bench clean

bootstrap: $(BIN)/sgprov
	$(BIN)/sgprov bootstrap --target cpu

# Static checks, unit tests and whole commands: no GPU, no Docker, no network beyond what `pip` needs.
test: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest $(PYTEST_OPTIONS)

# The same with the real engine and real installs: some 15 GB of downloads the first time.
test-all: $(VENV)/.dev
	$(BIN)/pytest --run-network --run-engine --run-ansible --run-container --run-attack --run-fault --run-long

# The attempts of docs/security.md, on the loopback and with users made for them; needs root. Writes its table.
attack: $(VENV)/.dev
	$(BIN)/pytest tests/attack --run-attack --tried docs/security.md

# The faults of docs/reliability.md: small stacks, the loopback, and file systems of its own. Writes its table.
faults: $(VENV)/.dev
	$(BIN)/pytest tests/faults --run-fault --tried docs/reliability.md

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.dev
	$(BIN)/python tools/generate-docs

# Side by side in one run, on this machine: half an hour, and 10 GB of downloads for the cold installs.
BENCH_PREFIX ?= $(CURDIR)/build/bench
bench: $(VENV)/.dev
	$(BIN)/sgprov bootstrap --target cpu --no-smoke --prefix $(BENCH_PREFIX)
	-$(BIN)/python benchmarks/bench_commands.py --prefix $(BENCH_PREFIX) --launch
	-$(BIN)/python benchmarks/bench_doctor.py --environment $(BENCH_PREFIX)/current --prefix $(BENCH_PREFIX)
	-$(BIN)/python benchmarks/bench_diagnose.py
	-$(BIN)/python benchmarks/bench_install.py

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache

# Every package by its hash, the build backend too; then sgprov itself, for which nothing more is asked of an index.
LOCKS := lockfiles/own
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
BY_HASH := $(PIP) install --only-binary :all: --require-hashes --requirement
ITSELF := $(PIP) install --no-index --no-deps --no-build-isolation --editable .

$(BIN)/sgprov: pyproject.toml $(LOCKS)/make.txt | $(BIN)/python
	$(BY_HASH) $(LOCKS)/make.txt
	$(ITSELF)
	@touch $@

$(VENV)/.dev: pyproject.toml $(LOCKS)/dev.txt | $(BIN)/python
	$(BY_HASH) $(LOCKS)/dev.txt
	$(ITSELF)
	@touch $@

# Debian and Ubuntu ship Python without the part that makes environments.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	  echo 'error: `$(PYTHON)` is missing or older than 3.10' >&2; \
	  echo 'hint: sudo apt-get install -y python3 python3-venv, or name another: make PYTHON=/path/to/python3' >&2; exit 3; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo 'error: `$(PYTHON)` cannot make virtual environments: ensurepip is not available' >&2; \
	  echo 'hint: sudo apt-get install -y python3-venv' >&2; exit 3; }
	$(PYTHON) -m venv $(VENV)
