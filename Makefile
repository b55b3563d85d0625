# Two commands from a fresh clone: `make demo` and `make test`. Each makes the environment if it is not there.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Test files run in so many processes; `make test TESTERS=0` runs them in one.
TESTERS ?= 2
AT_ONCE := -n $(TESTERS) --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-slow test-all bench check format clean

demo: $(VENV)/.installed
	$(BIN)/python jobs/demo.py --to demo

test: $(VENV)/.installed
	$(BIN)/python -m pytest $(AT_ONCE) -m "not slow"

# One at a time: two clusters of several nodes, or a cluster beside other work, starve on a small
# machine. There a cluster may still need longer than a test allows: what fails is run again, twice at most.
test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow --reruns 2 --rerun-show-tracebacks

test-all: test test-slow

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Ratios of one run, on a quiet machine, in an hour or more: `make bench FUNDUS_DATA=FOLDER`.
bench: $(VENV)/.installed
	$(BIN)/python benchmarks/bench.py --data "$(FUNDUS_DATA)"
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/engines.py
	$(BIN)/python benchmarks/memory.py --data "$(FUNDUS_DATA)" --frames 500 5000

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
