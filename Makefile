# `make help` lists what can be made. Every target does its own set-up, once: what is installed is
# recorded by stamps inside .venv, which a change of pyproject.toml or constraints.txt makes stale.

# The first Python on the path that is new enough; `make PYTHON=...` takes another.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null && \
	echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Our own build runs in the environment too, so that the pinned hatchling builds it.
INSTALL := $(PIP) install --constraint constraints.txt --no-build-isolation
# Passed on by `make demo` and `make test`: make test ARGS='tests/test_package.py -v'
ARGS ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint wheel docs clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-6s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## Train the MMSR example on generated histories and recommend
	$(BIN)/python -m examples.mmsr demo $(ARGS)

test: $(VENV)/.test ## Run the tests with every optional package (the first time builds two: minutes)
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.dev ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict mmgraph

wheel: $(VENV)/.demo ## Build the wheel into dist/
	$(PIP) wheel --no-deps --no-build-isolation --wheel-dir dist .

docs: $(VENV)/.dev ## Run the documentation's examples and build it into docs/_build/html
	$(BIN)/python -m sphinx --fail-on-warning --nitpicky --builder doctest docs docs/_build/doctest
	$(BIN)/python -m sphinx --fail-on-warning --nitpicky --builder html docs docs/_build/html

clean: ## Remove what was built, except the environment (.venv)
	rm -rf build dist docs/_build .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# Each stamp is made last, so an interrupted step is done again.

# An environment without a working pip, as an interrupted step leaves it, is made anew.
$(VENV)/.made:
	@test -n '$(PYTHON)' || { echo 'Python 3.11 or newer is needed: make PYTHON=/path/to/python' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, $(PYTHON) is "  \
		+ sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	touch $@

$(VENV)/.demo: $(VENV)/.made pyproject.toml constraints.txt
	$(PIP) install --constraint constraints.txt pip setuptools wheel hatchling
	$(INSTALL) --editable '.[examples,codebook,plot]'
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(INSTALL) --editable '.[examples,codebook,plot,pyg,docs,dev]'
	touch $@

$(VENV)/.test: $(VENV)/.dev scripts/install_scatter.py
	$(INSTALL) ninja
	$(BIN)/python scripts/install_scatter.py constraints.txt
	touch $@
