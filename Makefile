# nearflash: `make run` answers queries in the simulated SSD, `make test` proves it right.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
RUN_ARGS ?= --board pynq-z2
# pip compiles nothing (see below), and tests start a hundred Pythons: what they import is compiled once.
unexport PYTHONDONTWRITEBYTECODE
SEED ?= $(shell date +%s)
BENCH_ARGS ?= --quick

.PHONY: run test test-x lint cocotb bench util bitstreams docs setup clean help

run: $(STAMP) ## set up, generate the device, simulate it, check it against PyTorch, print speed and utilisation
	$(BIN)/nearflash run $(RUN_ARGS)

test: $(STAMP) ## set up, lint and pass all tests (pyright is one of them)
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(PYTEST_ARGS)

test-x: $(STAMP) ## nightly: longer former lives before each reset, of memories that begin with anything (SEED=number); a million beats through each shell; 200 random shapes of every tensor operator
	NEARFLASH_FORMER_LIVES=$(SEED) $(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m '' tests/hw tests/system/test_reset.py tests/system/test_fabric_lockstep.py tests/system/test_device_tensors.py tests/cocotb/test_cocotb_shell.py $(PYTEST_ARGS)

lint: $(STAMP) ## ruff and pyright alone
	$(BIN)/ruff check .
	$(BIN)/pyright

cocotb: $(STAMP) ## every cocotb bench (SIM=verilator|icarus, WAVES=1 for FST); JUnit results in build/cocotb/results
	$(BIN)/python -m pytest -n $(JOBS) tests/cocotb $(PYTEST_ARGS)

bench: $(STAMP) ## the figures of docs/performance.md, as tables and JSON (build/bench); BENCH_ARGS= for longer windows
	$(BIN)/python -m bench $(BENCH_ARGS) --json build/bench/bench.json

util: $(STAMP) ## LUT, FF, BRAM and DSP of a small device against the committed baseline
	$(BIN)/python -m bench.util --json build/bench/util.json

bitstreams: $(STAMP) ## build again what bitstreams/ holds of each board, where the gateware has changed
	$(BIN)/python -m bench.bitstreams

docs: $(STAMP) ## the documentation site in build/docs (open index.html; works offline); broken references are errors
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(BIN)/python -m sphinx -E -W --keep-going -q -d build/doctrees docs build/docs

setup: $(STAMP) ## only the virtual environment

# --no-compile: Python compiles what is imported, a tenth of what is installed.
$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: install it, or name it with make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[all,dev]'
	@touch $@

clean: ## remove everything generated (not the virtual environment)
	rm -rf build

help: ## this text
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'
