# Two commands on a fresh machine with Python 3.11 to 3.13 and make: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: setup demo test test-long check format clean
setup: $(STAMP)

# uv reads pip's constraints, installs in a third of the time, and is itself one wheel. Compiled once
# here, `import torch` takes 3 s instead of 7 where Python may not write what it compiles.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[all,dev]'
	touch $@

demo: setup
	$(BIN)/delineate demo --out demo --force

# Two tests at a time with a thread each: most are too small for a second thread to help.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not long" --numprocesses 2 --dist worksteal

test-long: setup
	$(BIN)/python -m pytest -m long --timeout 7200

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
