# Sets everything up by itself, from a machine with Debian 12, python3, make and root; `make` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory --no-builtin-rules

# A shell of root's may know neither nft nor modprobe.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

BIN := .venv/bin
PYTHON := $(BIN)/python

# The kernel of the tests: auto, host, docker, uml or virtme (docs/testing.md).
RUNNER ?= auto
# More arguments for pytest or for a bench: make netns-test ARGS='-k zone'
ARGS ?=
BENCH ?= $(basename $(notdir $(filter-out bench/common.py bench/__init__.py,$(wildcard bench/*.py))))
# A user-mode kernel beside the checkout is used when there is one.
IPVSPROXY_UML_KERNEL ?= $(abspath $(wildcard ../shared/kernel/linux))
export IPVSPROXY_UML_KERNEL

KERNEL := $(PYTHON) -m netns_tests.kernel --runner $(RUNNER)

VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' ipvsproxy/__init__.py)
REVISION = $(shell git rev-parse HEAD)
IMAGE ?= ipvsproxy:$(VERSION)
ROOTFS := build/image/rootfs.tar

.PHONY: help
help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

.PHONY: setup
setup: .venv/installed ## Install what is missing, and the locked requirements into .venv

.PHONY: check
check: setup ## Check format, lint, types and layers, then run the unit tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check --no-cache .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(MAKE) unit

.PHONY: unit
unit: setup ## Run the unit tests in random order, with branch coverage
	@$(PYTHON) -m tests.rules.promtool
	$(PYTHON) -m pytest --numprocesses=auto --cov --cov-report=term $(ARGS)

.PHONY: newest
newest: setup ## Run the unit tests with the newest versions that pyproject.toml allows
	$(BIN)/uv venv --quiet --allow-existing --python $(PYTHON) build/newest
	$(BIN)/uv pip install --quiet --python build/newest/bin/python --upgrade --editable '.[dev]' --group build
	build/newest/bin/python -m pytest --numprocesses=auto $(ARGS)

.PHONY: netns-test
netns-test: setup kernel-packages ## Run the packet tests on a real kernel (RUNNER=auto|host|docker|uml|virtme)
ifeq ($(ARGS),)
	@$(MAKE) --jobs=2 netns-commands netns-agent
else
	$(KERNEL) --junit build/netns-tests.xml -- $(PYTHON) -m pytest netns_tests -p no:cacheprovider $(ARGS)
endif

# Two kernels, beside one another: a kernel uses one CPU. Either half takes about as long as the other. Each line says
# which half it is from.
PREFIXED = 2>&1 | sed --unbuffered 's/^/$@: /'
TABLE_AND_COMMANDS := $(wildcard $(addprefix netns_tests/test_,\
	cases.py explain*.py check.py cleanup.py configuration.py dump*.py metrics.py migration.py top.py troubleshooting.py))

.PHONY: netns-commands
netns-commands:
	$(KERNEL) --junit build/netns-commands.xml -- \
		$(PYTHON) -m pytest $(TABLE_AND_COMMANDS) -p no:cacheprovider $(PREFIXED)

.PHONY: netns-agent
netns-agent:
	$(KERNEL) --junit build/netns-agent.xml -- \
		$(PYTHON) -m pytest netns_tests $(addprefix --ignore ,$(TABLE_AND_COMMANDS)) -p no:cacheprovider $(PREFIXED)

.PHONY: demo
demo: setup kernel-packages ## Show the agent at work, on a real kernel
	@$(KERNEL) -- $(PYTHON) -m netns_tests.demo

.PHONY: bench
bench: setup kernel-packages ## Measure, on a real kernel (BENCH=name for one)
	@for bench in $(BENCH); do $(KERNEL) -- $(PYTHON) -m "bench.$$bench" $(ARGS); done

.PHONY: test
test: ## Run all checks and tests, those on a real kernel included
	@echo "== 1 of 3: checks and unit tests"
	@$(MAKE) check
	@echo "== 2 of 3: packet tests on a real kernel"
	@$(MAKE) netns-test
	@echo "== 3 of 3: the image, and packet tests in a privileged container of it"
	@$(MAKE) container-test

.PHONY: image
image: ## Build the image from the Dockerfile (ARGS for docker build)
	docker build --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) --tag $(IMAGE) $(ARGS) .

.PHONY: image-rootfs
image-rootfs: setup ## Make the image's root file system without a registry
	@command -v mmdebstrap >/dev/null || { $(call install,mmdebstrap); }
	image/rootfs.sh $(PYTHON) $(ROOTFS)

.PHONY: image-import
image-import: ## Import that root file system into Docker
	image/import.sh $(ROOTFS) $(IMAGE) $(VERSION) $(REVISION)

.PHONY: container-test
container-test: setup kernel-packages ## Test the image, and packets in a privileged container of it
	@missing=$$($(PYTHON) -m netns_tests.container --missing-packages); $(call install,$$missing)
	$(PYTHON) -m netns_tests.container -- $(ARGS)

.PHONY: release-check
release-check: setup kernel-packages ## Build what is released, install it by itself, and run the demo from it
	$(PYTHON) -m tests.release
	@IPVSPROXY_PROGRAM="$(CURDIR)/build/release/environment/bin/ipvsproxy" $(KERNEL) -- \
		$(PYTHON) -m netns_tests.demo

.PHONY: end-to-end
end-to-end: setup kernel-packages ## Run the agent as its ServiceAccount (KUBEBUILDER_ASSETS=DIR; k3s where Docker is)
	$(KERNEL) -- $(PYTHON) -m pytest netns_tests/end_to_end -p no:cacheprovider $(ARGS)
	$(PYTHON) -m netns_tests.end_to_end $(ARGS)

.PHONY: derived
derived: setup ## Write what is made from code and values: docs/metrics.md, docs/man, the chart's README, schema and golden files
	$(PYTHON) -m tests.cli.man_pages
	$(PYTHON) -m tests.observe.metrics_document
	$(PYTHON) -m tests.chart.derived

.PHONY: screenshots
screenshots: setup kernel-packages ## Draw the pictures of the documents anew, from the real programs
	$(KERNEL) -- $(PYTHON) -m netns_tests.screenshots docs/images

.PHONY: lock
lock: setup ## Write requirements/*.txt anew from pyproject.toml (ARGS=--upgrade for newer versions)
	$(call compile,requirements/run.txt)
	$(call compile,requirements/dev.txt,--extra dev --constraint requirements/run.txt)
	$(BIN)/uv --quiet pip compile --group build --constraint requirements/dev.txt --output-file requirements/build.txt \
		--no-annotate $(LOCKING)

.PHONY: clean
clean: ## Remove what the other targets made here
	rm -rf .venv build dist .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

LOCKING := --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	--custom-compile-command 'make lock'

# $(1): the file to write; $(2): more arguments
compile = $(BIN)/uv --quiet pip compile pyproject.toml --output-file $(1) $(2) $(ARGS) \
	$(LOCKING)

# $(1): shell words, Debian packages to install; none is fine
install = if [ -n "$(1)" ]; then \
		echo "installing:" $(1); \
		export DEBIAN_FRONTEND=noninteractive; \
		apt-get -qq update; \
		apt-get -qq install --yes --no-install-recommends $(1) >/dev/null; \
	fi

.venv/installed: requirements/dev.txt pyproject.toml | system-packages
	@echo "installing the locked requirements into .venv"
	test -x $(BIN)/pip || python3 -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps --requirement requirements/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

# The programs that the agent and its tests run, kube-proxy's among them, and python3's own part for .venv.
.PHONY: system-packages
system-packages:
	@missing=; \
	command -v nft >/dev/null || missing+=" nftables"; \
	command -v ip >/dev/null || missing+=" iproute2"; \
	command -v modprobe >/dev/null || missing+=" kmod"; \
	command -v sysctl >/dev/null || missing+=" procps"; \
	command -v iptables-legacy >/dev/null || missing+=" iptables"; \
	command -v ipset >/dev/null || missing+=" ipset"; \
	command -v openssl >/dev/null || missing+=" openssl"; \
	python3 -c 'import ensurepip' 2>/dev/null || missing+=" python3-venv"; \
	$(call install,$$missing)

.PHONY: kernel-packages
kernel-packages: setup
	@missing=$$($(KERNEL) --missing-packages); $(call install,$$missing)
