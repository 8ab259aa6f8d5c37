# `make demo` and `make test` need only Python 3.11 to 3.13 and make; each sets its environment up first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LATEST := .venv-latest
CLIENT := .venv-client

# In as many processes as there are processors, four at most. Each takes whole files, in the order of their names,
# so that what a file's tests share is made once.
PYTEST := -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
ALL := -m 'whole_table or not whole_table'

# Some hundred processes import the kit: it is compiled once, also where the environment says not to keep what is.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test tests test-all test-latest lint format sync bench coverage kill-table backbones client rehearse clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(VENV): $(VENV)/ready

$(VENV)/ready: pyproject.toml constraints/kaggle.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"hpa-kit needs Python 3.11 to 3.13, found {v[0]}.{v[1]}: make PYTHON=/path/to/python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints/kaggle.txt --editable '.[dev]'
	@touch $@

# The newest release of everything, for .venv's Python: torch and torchvision are its own, which saves gigabytes.
$(LATEST)/ready: pyproject.toml $(VENV)/ready
	$(BIN)/python -m venv $(LATEST)
	$(BIN)/python -m pip freeze --exclude-editable | grep -iE '^(torch|torchvision|triton|nvidia[a-z0-9-]*|cuda[a-z0-9-]*)==' > $(LATEST)/torch.txt
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])' > $$($(LATEST)/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/zz_shared_torch.pth
	$(LATEST)/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager --constraint $(LATEST)/torch.txt --editable '.[dev]'
	@touch $@

demo: $(VENV)/ready  ## set up, then the whole job on simulated fields
	$(BIN)/hpa-kit demo --out demo

# Types are checked in one process: beside the tests, so that no processor waits for it.
test: $(VENV)/ready  ## set up, then lint, types and tests
	@$(MAKE) --no-print-directory --jobs 2 lint tests

test-all: $(VENV)/ready $(CLIENT)/ready  ## test, with every row of the tables of which it takes one of a kind
	@$(MAKE) --no-print-directory --jobs 2 lint tests ROWS="$(ALL)"

tests: $(VENV)/ready
	$(BIN)/python $(PYTEST) $(ROWS)

test-latest: $(LATEST)/ready  ## types and test-all with the newest release of everything
	$(LATEST)/bin/python -m mypy
	$(LATEST)/bin/python $(PYTEST) $(ALL)

lint: $(VENV)/ready  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/ready  ## ruff, with changes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

sync: $(VENV)/ready  ## the bootstrap cell into both notebooks' .py, and each .ipynb in step with its .py
	$(BIN)/python -m hpa_kit.kaggle.publish.notebooks
	$(BIN)/jupytext --sync notebooks/*.py

bench: $(VENV)/ready  ## benchmarks against the usual way
	$(BIN)/python -m pytest tests/benchmarks -s --override-ini addopts= -q

# Not counted: functions that numba compiles, and most of what runs in processes of its own.
coverage: $(VENV)/ready  ## the lines that no test runs
	$(BIN)/python $(PYTEST) $(ALL) --cov=hpa_kit --cov-branch --cov-report=term-missing:skip-covered

KILLS ?= 60

kill-table: $(VENV)/ready  ## kill every long command KILLS times, resume it, write docs/kill_table.md
	HPA_KIT_KILLS=$(KILLS) HPA_KIT_KILL_TABLE=docs/kill_table.md $(BIN)/python -m pytest tests/kill -q --timeout 3600 $(ALL)

backbones: $(VENV)/ready  ## try a member of every family of timm, write docs/backbones.md
	HPA_KIT_ALL_BACKBONES=1 $(BIN)/python -m pytest tests/models/test_backbones.py -q --timeout 1200 $(ALL)
	$(BIN)/python tests/models/write_backbones_page.py

# Apart from .venv: the client asks for packages that the kit does not need, and looks for an account when imported.
$(CLIENT)/ready:
	$(PYTHON) -m venv $(CLIENT)
	$(CLIENT)/bin/python -m pip install --quiet kaggle six
	@touch $@

client: $(CLIENT)/ready  ## the Kaggle client, for `hpa-kit kaggle data, train, submit, status` and their tests

rehearse: $(VENV)/ready  ## both notebooks as Kaggle runs them: its packages, no network, a hidden test set
	$(BIN)/hpa-kit kaggle rehearse

clean:  ## remove environments and outputs
	rm -rf $(VENV) $(LATEST) $(CLIENT) .venv-kaggle demo dist rehearsal build
