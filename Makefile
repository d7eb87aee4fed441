# ucvgl: `make help` lists what there is. Settings are given as `make reproduce PROFILE=tiny`.
PYTHON        ?= python3
TORCH_BACKEND ?=
PROFILE       ?= laptop
DATA          ?= world
SEED          ?= 0
PANORAMA      ?=
OTHER         ?=
DRONE         ?=
BACKBONE      ?=
ROWS          ?=
CORES         ?= all

SETTINGS := PROFILE DATA SEED ROWS PANORAMA OTHER DRONE BACKBONE CORES PYTHON TORCH_BACKEND
# A mistyped setting would silently do something else.
GIVEN    := $(foreach v,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(v)))),$(v)))
UNKNOWN  := $(filter-out $(SETTINGS),$(GIVEN))
ifneq ($(UNKNOWN),)
$(error unknown setting: $(UNKNOWN). Known ones: $(SETTINGS))
endif

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help env reproduce test test-browser gpu-check lab lint site refresh-notebooks clean
# Recipes read the settings from the environment, quoted: a path may hold spaces or quotes.
export PROFILE DATA SEED ROWS PANORAMA OTHER DRONE BACKBONE CORES PYTHON TORCH_BACKEND

BIN   := .venv/bin
FAISS := $(if $(shell command -v nvidia-smi),gpu,cpu)
# The environment is made once for a choice of faiss and torch; its stamp's name holds the choice.
STAMP := .venv/.made-$(FAISS)-$(or $(TORCH_BACKEND),index)
BROWSER := .venv/.made-browser
DOCS    := .venv/.made-docs

help:
	@echo 'make reproduce           every table and figure that is not up to date, to figures/'
	@echo '                         PROFILE=tiny|laptop|paper ($(PROFILE))   DATA=world|<folder> ($(DATA))'
	@echo '                         ROWS=all|headline|smoke (headline for the paper profile, else all)'
	@echo '                         SEED=0,1,2 ($(SEED))   CORES=all|<n> ($(CORES))   PANORAMA=<picture>'
	@echo '                         OTHER=<second data set>   DRONE=<University-1652 or SUES-200>   BACKBONE=<a timm name>[:frozen]'
	@echo 'make test                linter, tests, and the notebooks with the tiny profile'
	@echo 'make test-browser        the notebooks in JupyterLab, and a map page, in chromium; installs it (apt-get) where it is missing'
	@echo '                         screenshots: UCVGL_SHOTS=<folder> make test-browser'
	@echo 'make gpu-check           the first hour with a GPU: tests, precision, speed, memory, a larger study; resumes'
	@echo 'make lab                 JupyterLab on the notebooks'
	@echo 'make site                README, docs/, the notebooks and the reference as pages: build/site/index.html'
	@echo 'make env                 only the environment, .venv   PYTHON=<python 3.11 or later> ($(PYTHON))'
	@echo '                         TORCH_BACKEND=cpu|cu128|auto|... (as the package index has it)'
	@echo 'make lint                ruff, over .py and .ipynb'
	@echo 'make refresh-notebooks   renew the outputs shown in the committed notebooks'
	@echo 'make clean               remove the environment, runs/ and build/; figures/ stays'

env: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@"$$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "make: Python 3.11 or later is needed, $$PYTHON is $$("$$PYTHON" --version 2>&1 || true)." \
	         "Name another one: make env PYTHON=python3.12" >&2; exit 1; }
	@if ! $(BIN)/python -c '' 2>/dev/null; then "$$PYTHON" -m venv --clear .venv; fi
	@rm -f .venv/.made-*
	@# compiled once: where bytecode is not written (PYTHONDONTWRITEBYTECODE, as in many containers), each of the tests' and
	@# jobs' processes would spend seconds on compiling torch and timm anew
	@if $(BIN)/python -m pip install --quiet uv; then \
	    $(BIN)/python -m uv pip install --compile-bytecode --python $(BIN)/python $${TORCH_BACKEND:+--torch-backend "$$TORCH_BACKEND"} \
	        -e '.[$(FAISS),geo,test]' -c constraints.txt; \
	elif [ -z "$$TORCH_BACKEND" ]; then \
	    echo 'make: uv cannot be installed here; pip does it, more slowly' >&2; \
	    $(BIN)/python -m pip install -e '.[$(FAISS),geo,test]' -c constraints.txt; \
	else \
	    echo 'make: TORCH_BACKEND needs uv, which cannot be installed here; leave it out' >&2; exit 1; \
	fi
	@$(BIN)/python -m compileall -q ucvgl
	@touch $@

reproduce: env
	@$(BIN)/ucvgl reproduce --profile "$$PROFILE" --data "$$DATA" --seed "$$SEED" --rows "$$ROWS" --panorama "$$PANORAMA" --other "$$OTHER" \
	    --drone "$$DRONE" --backbone "$$BACKBONE" --cores "$$CORES"

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Two workers of one thread each: with more threads they would crawl. Stages that two notebooks share are computed by one
# and waited for by the other. The notebooks' kernels may warn; in the tests of the package a warning is an error.
test: export OMP_NUM_THREADS := 1
test: lint
	$(BIN)/python -m pytest -n 2 --dist loadgroup
	@if compgen -G 'notebooks/*.ipynb' >/dev/null; then set -x; \
	    UCVGL_PROFILE=tiny $(BIN)/python -m pytest --nbval-lax --nbval-current-env -n 2 --dist loadfile \
	        -o filterwarnings= notebooks; fi

$(BROWSER): $(STAMP)
	@$(BIN)/python -m pip install --quiet -e '.[browser]' -c constraints.txt
	@touch $@

test-browser: $(BROWSER)
	@if ! command -v chromium chromium-browser google-chrome >/dev/null; then \
	    as=$$([ "$$(id -u)" = 0 ] || echo 'sudo'); \
	    { command -v apt-get && $$as apt-get update -qq && $$as env DEBIAN_FRONTEND=noninteractive \
	        apt-get install -y -qq --no-install-recommends chromium chromium-sandbox fonts-liberation; } >/dev/null || { \
	        echo 'make: no chromium on PATH, and apt-get did not install it. Install chromium or Google Chrome,' \
	             'then call make test-browser again' >&2; exit 1; }; \
	fi
	UCVGL_BROWSER=1 $(BIN)/python -m pytest tests/browser

gpu-check: env
	-$(BIN)/python -m pytest -q -m gpu --continue-on-collection-errors
	$(BIN)/python -m benchmarks.gpu

lab: env
	$(BIN)/jupyter lab notebooks

$(DOCS): $(STAMP)
	@$(BIN)/python -m pip install --quiet -e '.[docs]' -c constraints.txt
	@touch $@

# Nothing is executed, nothing fetched. A broken link, a name that is not there or a missing docstring is an error.
site: $(DOCS)
	$(BIN)/ruff check --select D1 --ignore D105,D107 ucvgl
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -c docs -d build/doctrees . build/site
	@echo 'build/site/index.html'

refresh-notebooks: env
	$(BIN)/python scripts/refresh_notebooks.py

clean:
	rm -rf .venv runs build .pytest_cache .ruff_cache .hypothesis ucvgl.egg-info
