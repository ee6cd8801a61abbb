# Every target makes what it needs first; a second call starts in seconds.
SHELL := /bin/bash
VENV ?= .venv
BIN := $(VENV)/bin
export DO_NOT_TRACK := true
export BENTOML_DO_NOT_TRACK := True
export GX_ANALYTICS_ENABLED := false
export HF_HUB_OFFLINE := 1

.PHONY: setup run test test-full lint serve soak screenshots browser clean sbom audit

setup:
	@VENV=$(VENV) bash infra/setup.sh

run: setup  ## train, gate, promote, serve and replay on the shipped retail data
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash infra/first_run.sh

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pipelines.compile --check

# Tests that start servers and kill them have the machine to themselves; all others run a file on each core.
SERVERS := tests/chaos tests/e2e tests/examples tests/serving
tests = $(BIN)/python -m pytest -m $(1) -n $$(getconf _NPROCESSORS_ONLN) --maxprocesses 4 --dist loadfile tests $(addprefix --ignore=,$(SERVERS)) \
	&& $(BIN)/python -m pytest -m $(1) $(SERVERS)

test: lint  ## what CI runs: lint, types, layers, every test but the slow ones
	$(call tests,"not slow and not gpu")

browser:  ## what the browser's tests and the alert rules' need from Debian
	@bash infra/browser.sh

test-full: lint browser
	$(call tests,"not gpu")

serve: setup
	$(BIN)/sidrec serve

MINUTES ?= 30
soak: setup  ## traffic on a real server: latency and memory by the minute, and whether they climb
	$(BIN)/python -m benchmarks.soak --minutes $(MINUTES)

screenshots: setup browser  ## the pictures in docs/, from this installation's reports
	$(BIN)/python -m infra.screenshots

clean:
	rm -rf .sidrec .mypy_cache .ruff_cache .pytest_cache

sbom: setup  ## what the locked environment is made of, CycloneDX JSON
	@VENV=$(VENV) bash infra/images/sbom.sh

audit: setup  ## known vulnerabilities of every locked package; needs PyPI's advisory service
	@VENV=$(VENV) bash infra/images/audit.sh
