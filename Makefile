# Everything happens in .venv; nothing else on the machine is touched. Needs Python 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin
# One more than there are cores, since some tests mostly wait.
AT_ONCE := -n $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) + 1)') --maxschedchunk 1

.PHONY: demo test test-full faults-full check docs bench bench-scaling bench-latency bench-check peers format clean

demo: .venv/ready
	$(BIN)/collectors demo

# What fails beside others is tried once more by itself: a neighbour may have taken its port or its time.
test: .venv/ready check
	$(BIN)/python -m pytest $(AT_ONCE) -m "not slow and not alone" || \
		$(BIN)/python -m pytest --last-failed --last-failed-no-failures none
	$(BIN)/python -m pytest -m alone $$(grep -rl mark.alone tests --include='*.py')

test-full: .venv/ready check
	$(BIN)/python -m pytest $(AT_ONCE) -m "not alone"
	$(BIN)/python -m pytest -m alone $$(grep -rl mark.alone tests --include='*.py')

# Hours: the fault tests in full size; WHAT chooses some, for example WHAT=power_cuts. Figures go to benchmarks/results.
faults-full: .venv/ready
	$(BIN)/python -m pytest tests/faults tests/museum --full -s $(if $(WHAT),-k "$(WHAT)")

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/ready
	$(BIN)/python docs/generate.py

# On a machine that does nothing else; rsyslog has to be installed for its row.
bench: .venv/ready
	$(BIN)/python benchmarks/run.py --record
	$(BIN)/python docs/generate.py

# With FULL=1 also a hundred million rows.
bench-scaling: .venv/ready
	$(BIN)/python benchmarks/scaling.py --record $(if $(FULL),--full)
	$(BIN)/python docs/generate.py

bench-latency: .venv/ready
	$(BIN)/python benchmarks/latency.py --record
	$(BIN)/python docs/generate.py

# Fails when a function is slower than recorded; RECORD=1 records how fast they are now.
bench-check: .venv/bench-ready
	$(BIN)/python benchmarks/check.py $(if $(RECORD),--record)

peers: .venv/ready
	$(BIN)/python benchmarks/peers/run.py

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis demo-output

.venv/ready: pyproject.toml hatch_build.py $(wildcard src/collectors/_native/*.c src/collectors/codecs/_native/*.c src/collectors/_native/*.h)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "collectors needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "No virtual environment could be made; on Debian: apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "pip>=25.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group test
	@touch $@

.venv/bench-ready: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group bench
	@touch $@
