# Everything happens in .venv; nothing else on the machine is touched. Needs Python 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-full faults faults-full check docs peers format clean

demo: .venv/ready
	$(BIN)/collectors demo

test: .venv/ready check
	$(BIN)/python -m pytest -n auto -m "not slow"

test-full: .venv/ready check
	$(BIN)/python -m pytest -n auto

# Half an hour: kill, cut, fill, freeze and damage; the bug museum; chaos.
faults: .venv/ready
	$(BIN)/python -m pytest -n auto tests/faults tests/museum tests/chaos tests/e2e

# Hours: the fault tests in full size; WHAT chooses some, for example WHAT=power_cuts. Figures go to benchmarks/results.
faults-full: .venv/ready
	$(BIN)/python -m pytest tests/faults tests/museum --full -s $(if $(WHAT),-k "$(WHAT)")

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/ready
	$(BIN)/python docs/generate.py

peers: .venv/ready
	$(BIN)/python benchmarks/peers/run.py

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis demo-output

.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "collectors needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "No virtual environment could be made; on Debian: apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "pip>=25.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group test
	@touch $@
