# Each target brings what it needs: uv and Python packages by hash, into this checkout only. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
export SAM_CLI_TELEMETRY := 0
# Compiled modules go there and not beside the sources, which `sam build` packs as they are.
export PYTHONPYCACHEPREFIX := $(CURDIR)/.local/pycache
export AWS_DEFAULT_REGION ?= eu-west-1
dev := @requirements/install dev &&
bin := .venv/bin
STAGE ?= dev
ARCHITECTURE ?= arm64

.PHONY: help demo serve dashboard test check unit integration e2e coverage bench load mutate scan lint policy openapi picture rotate put-key format validate build deploy known-stage lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

demo: ## run the main job on the local stack and show it working
	$(dev) $(bin)/python -m local demo

serve: ## run the system on this machine until interrupted; IMBURSE_URL= SECRETS= CALLERS= POLICY= API_PORT= LAMBDA_PORT= LOG_FILE= CONCURRENCY=
	$(dev) exec $(bin)/python -m local serve

dashboard: ## draw the CloudWatch dashboard from what `serve` measured: .local/dashboard.html; LOG_FILE= DASHBOARD=
	$(dev) $(bin)/python -m local dashboard

test: ## run every test: the fast ones side by side on all cores, then those on the local stack
	$(dev) $(bin)/pytest -q -n auto tests/unit tests/integration && $(bin)/pytest tests/e2e

check: lint policy unit integration ## what a change must pass: lint, types, the policies, the fast tests

unit: ## tests without a network
	$(dev) $(bin)/pytest -q -n auto tests/unit

integration: ## tests on moto
	$(dev) $(bin)/pytest -q -n auto tests/integration

e2e: ## tests on the local stack
	$(dev) $(bin)/pytest -q tests/e2e

coverage: ## branch coverage of layers and functions by the fast tests; less than 97 % fails
	$(dev) $(bin)/pytest -q -n auto --cov --cov-report=term-missing tests/unit tests/integration

bench: ## measure everything side by side: tables here, plots and JSON in .local/bench; ARGS="--quick", "--readme", "--only NAME ..."
	$(dev) requirements/install runtime && requirements/build here && $(bin)/python -m tests.bench $(ARGS)

load: ## 64 callers for five minutes while everything around the functions fails in turns; MINUTES= CALLERS= SEED=
	$(dev) $(bin)/python -m tests.load --minutes $(or $(MINUTES),5) --callers $(or $(CALLERS),64) --seed $(or $(SEED),1)

mutate: ## change what everything rests on, one small thing at a time, and see the tests notice; MODULES="pool policy" JOBS=2
	$(dev) requirements/install mutation && $(bin)/python -m tests.mutation --jobs $(or $(JOBS),2) $(MODULES)

scan: ## bandit and detect-secrets: anything found fails
	@requirements/install scan && tests/scan

lint: ## ruff and mypy
	$(dev) $(bin)/ruff check . && $(bin)/ruff format --check . && $(bin)/mypy

# The second line holds for every stage's file: whom no rule names may neither vend nor pull the brake.
policy: ## every stage's policy: nothing wrong with it, and nothing in it for a stranger
	$(dev) $(bin)/imburse-vending policy check --strict
	@for what in "vend --credential sandbox/tenant-a" "vend --credential production/tenant-a" operate; do \
	    $(bin)/imburse-vending policy explain --stage all --caller arn:aws:iam::000000000000:role/stranger --expect denied --action $$what || exit 1; \
	done

openapi: ## write openapi.json from the code
	$(dev) $(bin)/python -m local.openapi

picture: ## run the demo and draw local/demo.svg, the picture in the README
	$(dev) $(bin)/python -m local.demo_picture

rotate: ## replace a key on the stack that `serve` runs, as Secrets Manager would: make rotate CREDENTIAL=sandbox/tenant-a
	$(dev) { [ ! -f .local/env ] || . .local/env; } && $(bin)/python -m local rotate '$(CREDENTIAL)'

put-key: ## store a key of the Tenant Portal: make put-key CREDENTIAL=sandbox/tenant-a ARGS="--from-file ..."; asks without a file
	$(dev) $(bin)/imburse-vending put-key '$(CREDENTIAL)' $(ARGS)

format: ## let ruff rewrite what it can
	$(dev) $(bin)/ruff check --fix . ; $(bin)/ruff format .

validate: ## the template: sam validate --lint, cfn-lint, checkov
	@requirements/install dev && requirements/install sam && requirements/install checkov
	.tools/sam/bin/sam validate --lint
	$(bin)/cfn-lint template.yaml
	.tools/checkov/bin/checkov

build: ## what is deployed, in .aws-sam/build: sam build and byte-compilation; wants Python 3.13
	@requirements/build $(ARCHITECTURE)

deploy: known-stage build ## build and deploy a stage: make deploy STAGE=sandbox
	.tools/sam/bin/sam deploy --config-env $(STAGE)

known-stage:
	@grep -q '^\[$(STAGE)\.deploy' samconfig.toml || { echo "STAGE=$(STAGE): samconfig.toml has no such stage"; exit 2; }

lock: ## compile the lock files anew from the pyproject.toml files, with hashes and without addresses
	@requirements/install dev && requirements/lock

clean: ## remove what make made
	rm -rf .venv .tools .aws-sam .local .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage {tests/dynalite,tests/browser,local/api_page}/node_modules
