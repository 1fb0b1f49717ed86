# Each target goes from a bare machine with Python 3.11, 3.12 or 3.13 to a finished job.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: train test test-slow lint docs mutants soak fuzz clean

train: .venv/.installed
	$(BIN)/python train.py --config configs/mnist_resnet.py:dropblock_label_smoothing --workdir runs/mnist

test: .venv/.installed
	$(BIN)/python -m pytest

test-slow: .venv/.installed
	$(BIN)/python -m pytest -m slow

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

# The site, in site/index.html; any warning is an error.
docs: .venv/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

.venv/.docs: .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]' -c constraints.txt
	touch $@

# Hours for all modules; see tests/mutants.py for MODULES="..." and AGAIN=1.
mutants: .venv/.installed
	$(BIN)/python tests/mutants.py $(MODULES) $(if $(AGAIN),--again)

# Kills, full disks and damaged checkpoints, within an hour; see tests/soak/__main__.py for ARGS="...".
soak: .venv/.installed
	PYTHONPATH=.:tests $(BIN)/python -m soak $(ARGS)

# Two minutes; see tests/fuzz/__main__.py for ARGS="--form 'coco json' --count 1000".
fuzz: .venv/.installed
	PYTHONPATH=.:tests $(BIN)/python -m fuzz $(ARGS)

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps jax2onnx -c constraints.txt
	touch $@

clean:
	rm -rf .venv runs site
