# make demo      train, render and show the built-in scene (installs first)
# make test      the test suite (installs first), in WORKERS processes of one thread each
# make install   only the environment, in .venv; a second run finds it there
# make check     ruff and mypy
# make wheel     build the wheel, install it in a fresh environment outside this tree, and walk through README with it

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2
INSTALLED := $(VENV)/.installed

.PHONY: demo test install check wheel clean

demo: $(INSTALLED)
	$(BIN)/taichi-nerf demo

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS)

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "taichi_nerf needs Python 3.10 to 3.13; choose one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "could not make $(VENV): on Debian and Ubuntu, apt install python3-venv"; exit 1; }
	@echo "installing into $(VENV); torch is the largest part and takes some minutes"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check taichi_nerf apps tests benchmarks examples
	$(BIN)/mypy

wheel: $(INSTALLED)
	$(BIN)/python tests/support/try_wheel.py

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
