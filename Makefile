# Each target makes the virtual environment it needs, and reuses it.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all fuzz lint examples docs

demo: .venv/benchmarks
	$(BIN)/python -m benchmarks demo --out out/demo

test: .venv/test
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

test-all: .venv/test
	$(BIN)/python -m pytest -n auto --dist worksteal --hypothesis-profile=all

fuzz: .venv/test
	$(BIN)/python -m pytest tests/data/test_fuzz.py --hypothesis-profile=fuzz

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/bandit --quiet --recursive skfp
	$(BIN)/python .ci/audit.py
	$(BIN)/python -m benchmarks docs --check

examples: .venv/examples
	set -e; for example in examples/plot_*.py; do \
		echo "$$example"; MPLBACKEND=Agg $(BIN)/python "$$example"; done

docs: .venv/docs
	$(BIN)/sphinx-build -W --keep-going -b html examples/docs out/docs

# One stamp per extra: installed again only when pyproject.toml changes.
.venv/%: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --editable '.[$*]'
	touch $@

$(BIN)/python:
	$(PYTHON) -m venv .venv
