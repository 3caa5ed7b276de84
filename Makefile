# Every target makes the environment it needs; a bare Python 3.11, git and make are enough.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# What is compiled once is kept: every command starts faster for it.
unexport PYTHONDONTWRITEBYTECODE
# Text is UTF-8 whatever the machine's locale.
export PYTHONUTF8 := 1

.PHONY: help env demo demo-pixels test test-all fuzz canary lint format proto bench-sketch bench-agent simulate-faults mutants bundle images test-containers clean

help:  ## what can be made
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

$(STAMP): pyproject.toml deploy/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint deploy/constraints.txt -e '.[courier,aggregator,worker,dev]'
	@# Of these only bundled data is used, never their code: leave their dependencies out.
	$(BIN)/python -m pip install --quiet --no-deps --constraint deploy/constraints.txt nilearn tensorly
	touch $@

env: $(STAMP)  ## only the environment; then: . .venv/bin/activate

demo: $(STAMP)  ## a whole federation on this machine; ends with build/demo/report.html
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m deploy.demo

demo-pixels: $(STAMP)  ## three sites sketch many-band pixels into a codebook; build/demo-pixels
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m deploy.demo_pixels

test: lint  ## lint and the default tests; SHUFFLE=1 (2, 3, ...) runs them in another order
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest -m "not slow" -n 3 --dist loadfile $(if $(SHUFFLE),--shuffle $(SHUFFLE))

test-all: lint  ## every test, the long ones too
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest -n 3 --dist loadfile

fuzz: $(STAMP)  ## a million bent messages against every reader; deploy/results/fuzz.md
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m tests.fuzz --cases $(or $(CASES),1000000) \
	  --seed $(or $(SEED),1) -o deploy/results/fuzz.md

canary: $(STAMP)  ## the Flower tests on the newest Flower that can be installed (FLWR=1.42.0)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m tests.canary $(if $(FLWR),--release $(FLWR))

lint: $(STAMP)  ## ruff, mypy strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(STAMP)  ## let ruff format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

proto: $(STAMP)  ## regenerate common/desk/desk_pb2* from desk.proto
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m grpc_tools.protoc -I. --python_out=. \
	  --grpc_python_out=. --mypy_out=quiet:. --mypy_grpc_out=quiet:. common/desk/desk.proto

bench-sketch: $(STAMP)  ## count sketch against its peers, in one run
	$(BIN)/python -m tests.benchmarks.sketch

bundle: $(STAMP)  ## dist/cairn-VERSION.tar.gz: all that a machine without a network needs
	$(BIN)/python -m deploy.bundle pack

# A release pins the base: make images BASE=docker.io/library/python@sha256:...
images: $(STAMP)  ## worker, courier and aggregator images (podman; ENGINE=docker)
	$(BIN)/python -m deploy.bundle images $(if $(BASE),--base $(BASE)) $(if $(ENGINE),--engine $(ENGINE)) -- $(BUILD_OPTIONS)

test-containers: $(STAMP)  ## build the images and run a federation in them (podman, runc, root)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest tests/containers tests/deploy -m slow

SEEDS ?= 0:1000
simulate-faults: $(STAMP)  ## whole federations under drawn faults and lies (SEEDS=first:end)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m tests.simulation --seeds $(SEEDS)

mutants: $(STAMP)  ## how many small changes of the guarding rooms do the tests notice? (hours)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m tests.mutation --write $(MUTANTS)

bench-agent: $(STAMP)  ## cost of the agents against the field's way, in one run
	$(BIN)/python -m tests.benchmarks.agent

clean:  ## remove build output (the environment stays)
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
