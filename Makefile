# Everything a person or CI does here. Each target sets up .venv by itself; `make help` lists them.
PYTHON  ?= $(firstword $(foreach p,python3 python3.11 python3.12 python3.13,$(if $(shell $(p) -c 'import sys; print(1 if sys.version_info >= (3, 11) else "")' 2>/dev/null),$(p))))
CORPUS  ?= demo
# light (no download), base (about 1 GB, see `ecmf doctor --profile base`), paper (GPU)
PROFILE ?= light
WEIGHTS ?=
# more of `ecmf report`'s options, e.g. ARGS="--set seeds=5 --set detector=lbp"
ARGS    ?=
BIN     := .venv/bin
# weights of the profile that are not here yet; if that fails, the report says what is missing. Swaps are fetched by name.
FETCH    = $(if $(filter-out light,$(PROFILE)),$(if $(findstring --encoder,$(ARGS)),,$(BIN)/ecmf fetch --profile $(PROFILE) $(if $(WEIGHTS),--weights "$(WEIGHTS)") || true))
# One pytest process a core (8 at most: each takes about 1 GB). A file's tests stay together, since they share what is
# slow to make; the files keep their order, in which tests/conftest.py has put the longest first.
PARALLEL = -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

.PHONY: help setup reports test torture lint lab bench lock licences audit docs clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

.venv/ready: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "ECMF needs Python 3.11 or newer on the PATH (or: make PYTHON=/path/to/python3.11 ...)"; exit 1; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

setup: .venv/ready  ## make .venv with the exact versions of requirements.lock

reports: setup  ## run the notebooks on CORPUS (default: demo), write reports/<corpus>[-<profile>]/index.html
	@$(FETCH)
	$(BIN)/ecmf report "$(CORPUS)" --profile $(PROFILE) $(if $(WEIGHTS),--weights "$(WEIGHTS)") $(ARGS)

lint: setup  ## ruff: style and common mistakes, library, tests and notebooks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

test: lint  ## lint, run the tests, execute every notebook with tiny parameters
	$(BIN)/python -m pytest $(PARALLEL)

torture: setup  ## faults (50 times kill -9, disk full, …) and hostile inputs, 20 minutes at most: reports/torture
	$(BIN)/python tests/torture/run.py

lab: setup  ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks/00_start_here.ipynb

bench: setup  ## speed against bounds and rivals, a quarter of an hour: one table, reports/bench/index.html
	$(BIN)/python benchmarks/bench.py

lock:  ## refresh requirements.lock from pyproject.toml (needs uv)
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --no-header --quiet --output-file requirements.lock

licences: setup  ## list the licence of every locked package in docs/licences.md
	$(BIN)/python tools/licences.py

# in an environment of its own inside .venv: what looks for holes adds none to what it looks at. --strict: a package that
# could not be looked up (no network, another index) is a failure, not a pass
audit: setup  ## look up known vulnerabilities of the locked packages (needs the network)
	@test -x .venv/audit/bin/pip-audit || { $(PYTHON) -m venv .venv/audit && \
	  .venv/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1; }
	.venv/audit/bin/pip-audit --strict --disable-pip --require-hashes --progress-spinner off --requirement requirements.lock

# pdoc beside the locked packages and not among them: all else that it needs (jinja2, pygments) is there already
docs: setup  ## API pages from the docstrings: docs/api/index.html (needs the network the first time)
	@test -d .venv/docs/markdown2-2.5.5.dist-info || $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
	  --target .venv/docs pdoc==16.0.0 markdown2==2.5.5
	PYTHONPATH=.venv/docs $(BIN)/python -m pdoc --docformat numpy --output-directory docs/api ecmf_lib

clean:  ## remove what was generated (not .venv, not the tracked reports)
	rm -rf data/demo data/store data/cache data/state docs/api .pytest_cache .ruff_cache
