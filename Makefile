# `make demo` and `make test` set up everything they need in .venv; nothing else has to be installed first.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

PEERS  ?= $(or $(TMPDIR),/tmp)/tierwise-peers

.PHONY: demo test lint build model bench bench-gateway bench-peers fuzz frameworks clean

demo: $(VENV)/.installed
	$(BIN)/tierwise demo

test: lint
	$(BIN)/pytest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

model: $(VENV)/.installed-dev            # rebuild the shipped artifact: make model CORPORA=DIR (docs/training.md)
	$(BIN)/python -m training build $(if $(CORPORA),--corpora "$(CORPORA)")

bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/decision.py
	$(BIN)/python benchmarks/dispatch.py

bench-gateway: $(VENV)/.installed-dev    # needs wrk and cc; JSON on stdout
	@$(BIN)/python benchmarks/gateway.py $(ARGS)

bench-peers: $(VENV)/.installed-dev $(PEERS)/.installed  # the same beside LiteLLM's proxy and Portkey's gateway (needs npm)
	@$(BIN)/python benchmarks/gateway.py $(ARGS) --litellm $(PEERS)/litellm/bin/litellm \
	  --portkey $(PEERS)/node_modules/@portkey-ai/gateway/build/start-server.js

$(PEERS)/.installed:
	@$(PYTHON) -m venv $(PEERS)/litellm
	@$(PEERS)/litellm/bin/python -m pip install --quiet "litellm[proxy]==1.108.7" >&2
	@npm install --silent --no-audit --no-fund --prefix $(PEERS) @portkey-ai/gateway@1.15.2 >&2
	@touch $@

fuzz: $(VENV)/.installed-dev             # 100,000 mutated requests against the gateway; JSON on stdout
	@$(BIN)/python benchmarks/fuzz.py $(ARGS)

frameworks: $(PEERS)/frameworks/.installed  # the programs of examples/frameworks, against the real libraries
	$(PEERS)/frameworks/bin/python -m pytest tests/test_frameworks.py

$(PEERS)/frameworks/.installed: examples/frameworks/requirements.txt pyproject.toml
	@$(PYTHON) -m venv $(PEERS)/frameworks
	@$(PEERS)/frameworks/bin/python -m pip install --quiet uv >&2
	@echo "openai>=3.54" > $(PEERS)/frameworks/overrides.txt  # llama-index asks for openai<3
	@$(PEERS)/frameworks/bin/uv pip install --quiet --python $(PEERS)/frameworks/bin/python \
	  --override $(PEERS)/frameworks/overrides.txt --editable ".[gateway]" --requirement $< pytest >&2
	@touch $@

build: $(VENV)/.installed-dev
	$(BIN)/python -m build --wheel --no-isolation

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
