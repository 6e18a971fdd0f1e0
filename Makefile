# Each target makes the virtual environment it needs, and reuses it.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint

demo: .venv/benchmarks
	$(BIN)/python -m benchmarks demo --out out/demo

test: .venv/test
	$(BIN)/python -m pytest

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m benchmarks readme --check

# One stamp per extra: installed again only when pyproject.toml changes.
.venv/%: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --editable '.[$*]'
	touch $@

$(BIN)/python:
	$(PYTHON) -m venv .venv
