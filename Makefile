# Two commands do everything on a machine with Python 3.11 or newer:
#   make demo   installs, trains a classifier on drawn pictures and predicts with it
#   make test   installs and passes the tests
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint types check descriptions slow clean

demo: $(VENV)/.installed
	rm -rf demo
	$(BIN)/visionkit fit -c classify.yaml --trainer.default_root_dir demo/run
	$(BIN)/visionkit shapes --out demo/pictures --count 30
	$(BIN)/visionkit predict --ckpt demo/run/checkpoints/best.ckpt --out demo/predictions demo/pictures --save-images
	@echo "The run is in demo/run, the predictions are in demo/predictions (predictions.jsonl, .csv and images/)."

test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n auto --maxprocesses 4 --dist worksteal

slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

check: lint types test

# After options of public classes have changed: writes what `fit --help` reads; a test says when it is old.
descriptions: $(VENV)/.installed
	$(BIN)/python -m visionkit.cli.config.descriptions

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache
