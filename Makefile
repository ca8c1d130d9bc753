PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
STORE ?= demo
# processes that share the tests: one thread and up to 2 GB each
TESTS_AT_ONCE ?= 2

.PHONY: demo test mutants test-portable test-all test-cuda lint bench clean
.DEFAULT_GOAL := demo

# torch is named on the line so that the pinned build is taken, whichever index serves it
$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Setting up $(VENV) (once; a few minutes where the network is slow)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0 -e '.[dev]'
	@touch $@

$(VENV): $(READY)

demo: $(READY)
	@$(BIN)/bands bench run quick --store $(STORE)

test: $(READY)
	@$(BIN)/python -m pytest -q -n $(TESTS_AT_ONCE) --dist loadfile

# the tests that train or search, as other processors and other numbers of threads would run them
test-portable: $(READY)
	@$(BIN)/python tests/portable.py

# methods broken one line at a time: each must be noticed by a test
mutants: $(READY)
	@$(BIN)/python tests/mutants.py

test-all: $(READY)
	@$(BIN)/python -m pytest -q -n $(TESTS_AT_ONCE) --dist loadfile -m "slow or not slow" --timeout 3600

test-cuda: $(READY)
	@$(BIN)/python -m pytest -q -m cuda

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(READY)
	@$(BIN)/python -m benchmarks.receipts
	@$(BIN)/python -m benchmarks.peers

clean:
	rm -rf $(VENV) $(STORE) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
