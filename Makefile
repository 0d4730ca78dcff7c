# make demo    a virtual environment, csraxis with its compiled kernels; the single-cell chain on the embedded cells, with
#              a file and a picture in demo/, and the kernels compared with their peers
# make test    the same environment, and the whole suite with both engines required
# make lint    ruff, cython-lint, mypy, workflows
# make docs    the documentation site, in build/site; make linkcheck asks the sites that it links to

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test lint docs linkcheck clean

demo: $(VENV)/installed
	$(BIN)/python -m bench demo
	$(BIN)/python -m bench --quick

test: $(VENV)/installed
	CSRAXIS_REQUIRE_ENGINES=cython,numba $(BIN)/python -m pytest -n auto --dist worksteal

lint: $(VENV)/linted
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/cython-lint src/kernels_cy
	$(BIN)/mypy src
	PATH="$(abspath $(BIN)):$$PATH" .ci/lint_github

# Built again when the sources of the compiled kernels, or what they are built with, have changed.
$(VENV)/installed: pyproject.toml setup.py $(wildcard src/kernels_cy/*.p*)
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), f"csraxis needs Python 3.11 or newer, not {sys.version}"'
	@echo "Installing csraxis and the packages that it is compared with into $(VENV): a few minutes, once."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	CSRAXIS_REQUIRE_EXT=1 $(BIN)/python -m pip install --quiet --editable ".[all]"
	touch $@

# Every warning is an error, links without a target among them.
docs: $(VENV)/documented
	rm -rf docs/api/generated build/site
	$(BIN)/python -m sphinx -n -W --keep-going -q -E -d build/doctrees docs build/site

linkcheck: docs
	$(BIN)/python -m sphinx -q -d build/doctrees -b linkcheck docs build/linkcheck

$(VENV)/documented: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --group docs
	touch $@

$(VENV)/linted: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --group dev
	touch $@

clean:
	rm -rf build demo dist $(VENV) src/*.egg-info src/kernels_cy/*.so
