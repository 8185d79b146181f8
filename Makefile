# `make demo` and `make test` set themselves up: nothing but Python 3.11+ and make is needed.
PYTHON ?= python3
VENV := .venv
FLOORS := .venv-floors
DOCS := .venv-docs
SITE := site
BIN := $(VENV)/bin
COVERAGE := --cov=darnax --cov-report=term:skip-covered --cov-fail-under=95

.PHONY: demo test coverage test-slow test-floors lint docs docs-serve wheel bench clean

# what an installation is made from: the native library is compiled anew where its sources change
SOURCES := pyproject.toml hatch_build.py $(wildcard darnax/native/*.cc darnax/native/*.h)

$(VENV)/installed: $(SOURCES)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/python examples/digits.py

test: $(VENV)/installed lint
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow'

# the same, and the lines that they reach; before Python 3.14 counting them takes half as long again
coverage: $(VENV)/installed lint
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow' $(COVERAGE)

test-slow: $(VENV)/installed
	DARNAX_TEST_OPTIMISED=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# the same tests on the lowest versions that `pyproject.toml` allows
test-floors: $(FLOORS)/installed
	$(FLOORS)/bin/python -m pytest -n 2 --dist worksteal -m 'not slow'

$(FLOORS)/installed: $(SOURCES) tests/floors.py
	$(PYTHON) -m venv $(FLOORS)
	$(PYTHON) tests/floors.py > $(FLOORS)/floors.txt
	$(FLOORS)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[test]' -c $(FLOORS)/floors.txt
	touch $@

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --project pyproject.toml --pythonpath $(BIN)/python

# the site, in the folder `site`: a warning, or a link that leads nowhere, is an error
docs: $(DOCS)/installed
	$(MKDOCS) build --strict --site-dir $(SITE)

# the same, looked at while you write
docs-serve: $(DOCS)/installed
	$(MKDOCS) serve

# the variable silences a notice of the theme about its successor
MKDOCS := NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/python -m mkdocs

$(DOCS)/installed: $(SOURCES)
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	touch $@

# the source distribution and a wheel of it in dist/, tried in a fresh environment
wheel: $(VENV)/installed
	$(BIN)/python tools/wheel.py

bench: $(VENV)/installed
	$(BIN)/python benchmarks/first_minute.py
	$(BIN)/python benchmarks/foundation.py
	$(BIN)/python benchmarks/topologies.py
	$(BIN)/python benchmarks/sparse.py
	$(BIN)/python benchmarks/relaxing.py
	$(BIN)/python benchmarks/reverse.py
	$(BIN)/python benchmarks/speed.py

clean:
	rm -rf $(VENV) $(FLOORS) $(DOCS) $(SITE) dist .docs-cache .pytest_cache .ruff_cache .hypothesis
	rm -f darnax/native/libdarnax.* .coverage* digits.png
	find . -path './.*' -prune -o -name __pycache__ -prune -exec rm -rf {} +
