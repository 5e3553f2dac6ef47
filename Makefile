# make demo: sets everything up and runs the main job.  make test: sets everything up and passes the tests.
# Both work from a bare clone: they make .venv themselves from a Python 3.11 to 3.13 on PATH.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CORE_VENV := .venv-core
OPENPI_VENV := .venv-interop-openpi
VLA_EVAL_VENV := .venv-interop-vla-eval
LIBERO_VENV := .venv-interop-libero
OUT ?= runs/demo
# What neither compiles models, nor renders, nor loads TensorFlow: two and a half minutes of one core.
FAST := tests/actions tests/data tests/files tests/inputs tests/tokens \
	tests/evaluate/test_evaluate_statistics.py tests/evaluate/test_evaluate_text.py \
	tests/models/test_models_config.py tests/models/test_models_golden.py \
	tests/report/test_report_comparison.py tests/report/test_report_pages.py \
	$(addprefix tests/sim/test_sim_,$(addsuffix .py,contract describe lexicon plans splits)) \
	$(addprefix tests/train/test_train_,$(addsuffix .py,config losses metrics optimizer)) \
	tests/test_cli_door.py tests/test_configs.py tests/test_extras.py tests/test_house.py tests/test_typed.py

.DEFAULT_GOAL := help
.PHONY: help demo test lint docs test-core test-fast test-faults test-serve-faults test-interop test-interop-libero gl \
	clean

help:  ## what this Makefile can do
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(READY): setup.py constraints.txt
	@launch/make_venv.sh $(VENV) -e '.[dev]'
	@touch $@

gl: $(READY)  ## the OpenGL libraries MuJoCo renders with: found, or installed when root, or named
	@launch/ensure_gl.sh $(BIN)/python

demo: $(READY) gl  ## build data, co-fine-tune from the shipped VLM, evaluate in closed loop, write the report
	@PATH="$(CURDIR)/$(BIN):$$PATH" launch/demo.sh $(OUT)

test: lint gl  ## lint, import contracts and the whole test suite
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-fast: $(READY)  ## the quick tests, for daily work (under two minutes on two cores)
	$(BIN)/python -m pytest -n 2 --dist loadfile $(FAST)

test-faults: $(READY) gl  ## every attack of the fault suite (45 minutes), with the table of docs/reliability.md
	RT2_FAULTS=full $(BIN)/python -m pytest -n 2 --dist loadfile -m "slow or not slow" tests/faults

test-serve-faults: $(READY)  ## the server's fault tests, and its fuzzers for ten minutes (RT2_FUZZ_SECONDS)
	$(BIN)/python -m pytest -n 0 -m "slow or not slow" tests/serve

lint: $(READY)  ## ruff, its format, the import contracts and the types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/basedpyright

test-core: $(CORE_VENV)/.ready  ## the wheel with the core alone, without TensorFlow and away from here, trains and acts
	@rm -rf build/wheel build/lib build/bdist*
	$(CORE_VENV)/bin/python -m pip wheel --quiet --no-deps --wheel-dir build/wheel .
	$(CORE_VENV)/bin/python -m pip install --quiet --no-deps --force-reinstall build/wheel/*.whl
	cd /tmp && $(CURDIR)/$(CORE_VENV)/bin/python -I $(CURDIR)/tests/core/train_without_tensorflow.py
	cd /tmp && $(CURDIR)/$(CORE_VENV)/bin/python -I $(CURDIR)/tests/core/act_from_wheel.py $(CURDIR)

$(CORE_VENV)/.ready: setup.py constraints.txt
	@launch/make_venv.sh $(CORE_VENV) .
	@touch $@

test-interop: $(READY) gl $(OPENPI_VENV)/.ready $(VLA_EVAL_VENV)/.ready  ## clients of the field drive worlds through rt2 serve, unmodified
	$(BIN)/python tests/interop/drive.py $(OPENPI_VENV)/bin/python $(VLA_EVAL_VENV)/bin
	$(BIN)/python tests/interop/page_in_browser.py "$$(launch/ensure_browser.sh)"

test-interop-libero: $(READY) gl $(LIBERO_VENV)/.ready  ## vla-eval drives LIBERO through rt2 serve (an environment of 2 GB)
	$(BIN)/python tests/interop/drive_libero.py $(LIBERO_VENV)/bin

# Their own environments: openpi-client wants an older NumPy. What they install is pinned beside the scripts.
.venv-interop-%/.ready: tests/interop/%.txt
	@CONSTRAINTS=/dev/null launch/make_venv.sh $(@D) -r $<
	@touch $@

docs: $(READY)  ## the site of the documentation in build/site, built strictly and without the network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	@echo $(CURDIR)/build/site/index.html

clean:  ## remove the environments, what was built, and the demo's output
	rm -rf $(VENV) $(CORE_VENV) $(OPENPI_VENV) $(VLA_EVAL_VENV) $(LIBERO_VENV) build runs
