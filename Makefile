# Everything a developer or CI does. Needs git, make and Python 3.11 or newer with venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EDITABLE := -e libs/common -e services/gateway -e services/publisher-api -e services/ai-worker -e clients/python
STAMP := $(VENV)/.ready
MANIFESTS := $(wildcard libs/*/pyproject.toml services/*/pyproject.toml clients/python/pyproject.toml)

.PHONY: run setup test stress bench check lock format

# AUTH=token: everyone is asked who they are. One that merely stands in the environment may mean something else.
run: setup
	@exec env $(if $(filter command line,$(origin AUTH)),'TIDEGATE_AUTH=$(AUTH)') $(BIN)/python -m scripts.run

setup: $(STAMP)

$(STAMP): requirements/dev.lock requirements/model.lock $(MANIFESTS)
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Tidegate needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": set PYTHON, for example make PYTHON=python3.13 $(MAKECMDGOALS)")'
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) has no venv module: install it (Debian: apt-get install python3-venv) or set PYTHON" >&2; exit 1; }
	@$(PYTHON) -c 'import ssl' 2>/dev/null || { echo "$(PYTHON) was built without TLS (module ssl): set PYTHON to another one, for example make PYTHON=/usr/bin/python3 $(MAKECMDGOALS)" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) from requirements/*.lock"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/dev.lock -r requirements/model.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation $(EDITABLE)
	@touch $@

# tests/conftest.py says how many run at once. If Python may keep no bytecode, each process would compile all tests anew.
unexport PYTHONDONTWRITEBYTECODE
test: setup
	$(BIN)/python -m pytest -n auto $(ARGS)

stress: setup
	$(BIN)/python -m tests.stress $(ARGS)

bench: setup
	$(BIN)/python -m benchmarks $(ARGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m scripts.check_docs
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/lock --check

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: setup
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/lock
