# Two commands from a fresh clone: `make demo` and `make test`. Each makes the environment if it is not there.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Test files run in so many processes; `make test TESTERS=0` runs them in one.
TESTERS ?= 2
AT_ONCE := -n $(TESTERS) --dist loadgroup --no-loadscope-reorder

.PHONY: demo test test-slow test-all check format clean

demo: $(VENV)/.installed
	$(BIN)/python jobs/demo.py --to demo

test: $(VENV)/.installed
	$(BIN)/python -m pytest $(AT_ONCE) -m "not slow"

test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest $(AT_ONCE) -m slow

test-all: test test-slow

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v >= (3, 11) or sys.exit("fundus needs Python 3.11 or later, this is %d.%d; say which: make PYTHON=python3.11" % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache
