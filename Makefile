# Everything runs in a virtual environment that the targets make themselves.
PYTHON ?= python3
VENV ?= .venv
# Installed by itself first: on machines with a local CPU build this takes it, and the training
# packages then find torch there instead of fetching one with CUDA.
TORCH ?= torch==2.13.0
PYTEST_ARGS ?=
# A file of tests stays together, for what its tests share. `PARALLEL=` for one after the other.
PARALLEL ?= --numprocesses auto --maxprocesses 4 --dist loadfile --max-worker-restart 0
PEERS_ARGS ?=
STREAMS ?= 60
SECONDS ?= 60
HOURS ?= 24
KILLS ?= 200
DAYS ?= 30
MESSAGES ?= 10000000

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
RUNTIME := $(VENV)/.runtime-installed
DEVELOPMENT := $(VENV)/.development-installed
OLDEST := .venv-oldest
PEERS := .venv-peers

export PYTHON

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench bench-peers test-audio test-system test-oldest soak faults fuzz wheel demo-recording clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */\1|/' \
		| awk -F'|' '{printf "  make %-16s %s\n", $$1, $$2}'

$(BIN)/python:
	@.ci/system-packages venv
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "serd needs Python 3.11 or newer: make PYTHON=python3.11 …" >&2; exit 1; }
	@echo "Creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(RUNTIME): pyproject.toml Makefile | $(BIN)/python
	@echo "Installing serd and its CPU runtime into $(VENV) (about a minute)"
	@$(PIP) --editable '.[cpu]'
	@touch $@

$(DEVELOPMENT): pyproject.toml Makefile | $(RUNTIME)
	@.ci/system-packages audio interop
	@echo "Installing $(TORCH) into $(VENV)"
	@$(PIP) '$(TORCH)'
	@echo "Installing the tools for training and testing into $(VENV)"
	@$(PIP) --editable '.[cpu,train,backbone,dev]'
	@touch $@

demo: $(RUNTIME)  ## see a real daemon at work on a recorded conversation (40 seconds)
	@$(BIN)/serd demo

lint: $(DEVELOPMENT)  ## style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEVELOPMENT)  ## put the code into its standard form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: lint  ## lint and every test (PYTEST_ARGS="-k name" to choose)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not audio_device and not system' $(PARALLEL) $(PYTEST_ARGS)

test-oldest: | $(BIN)/python  ## the core tests on the oldest supported packages
	@test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	@echo "Installing the oldest supported packages into $(OLDEST)"
	@$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint tests/constraints-oldest.txt \
		--editable '.[cpu]' pytest pytest-timeout hypothesis jsonschema pyyaml
	$(OLDEST)/bin/python -m pytest -m 'not slow and not audio_device and not system' \
		--ignore tests/trainer --ignore tests/faults --ignore tests/fuzz $(PYTEST_ARGS)

test-audio: $(DEVELOPMENT)  ## a microphone that is real to PortAudio, made by PulseAudio
	tests/audio_device/run $(BIN)/python $(PYTEST_ARGS)

test-system: $(DEVELOPMENT)  ## the units under a booted systemd (root; 3 minutes)
	tests/system/run $(BIN)/python $(PYTEST_ARGS)

soak: $(DEVELOPMENT)  ## a day of audio through one daemon, as fast as it goes (HOURS=24)
	SERD_SOAK=$(HOURS) $(BIN)/python -m pytest -s tests/soak $(PYTEST_ARGS)

faults: $(DEVELOPMENT)  ## kill, flood, starve and disconnect real daemons at length (KILLS=200 DAYS=30)
	SERD_FAULTS_KILLS=$(KILLS) SERD_FAULTS_DAYS=$(DAYS) SERD_FAULTS_CALLS_A_DAY=10000 \
		$(BIN)/python -m pytest -s tests/faults $(PYTEST_ARGS)

fuzz: $(DEVELOPMENT)  ## fuzz every decoder, guided by coverage (MESSAGES=10000000, 20 minutes)
	@$(PIP) --editable '.[cpu,dev,fuzz]'
	$(BIN)/python -m tests.fuzz --messages $(MESSAGES)

bench: $(RUNTIME)  ## calls in real time: loss, latency, load (STREAMS=60 SECONDS=60)
	$(BIN)/serd bench --streams $(STREAMS) --seconds $(SECONDS)

bench-peers: | $(BIN)/python  ## serd beside other programs that do its work (an idle machine, 12 minutes)
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check '$(TORCH)'
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check \
		--editable '.[cpu]' --requirement tests/bench/peers/requirements.txt
	$(PEERS)/bin/python -m tests.bench.peers $(PEERS_ARGS)

demo-recording: $(DEVELOPMENT)  ## speak serd/demo/two-voices.flac anew
	@.ci/system-packages espeak
	$(BIN)/python -m serd.demo.make_recording

wheel: $(DEVELOPMENT)  ## build dist/serd-*.whl
	$(BIN)/python -m build --wheel

clean:  ## remove everything that can be made again
	rm -rf $(VENV) $(OLDEST) $(PEERS) .cache build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
