# EPIC: the commands of development. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup setup-lab setup-etcd check lint types quick slow unit golden sanity changelog bpf bundle release lab site demo test e2e e2e-etcd repeat bench bench-transport bench-second-chance bench-agent bench-store bench-core bench-control bench-mirror test-long test-second-chance test-kernels clean-lab clean

BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export ANSIBLE_FORCE_COLOR ?= $(if $(CI),0,1)
# The lab runs on one machine: mitogen's strategy takes a third of the processor time of the stock one.
export ANSIBLE_STRATEGY_PLUGINS := $(CURDIR)/.venv/lib/python3.11/site-packages/ansible_mitogen/plugins/strategy
export ANSIBLE_STRATEGY ?= mitogen_linear
# Ansible calls strategies of others deprecated, before each play; a site's runs have the stock one, and its warnings.
export ANSIBLE_DEPRECATION_WARNINGS ?= $(if $(filter mitogen%,$(ANSIBLE_STRATEGY)),False,True)
# Without what Python keeps compiled, each of the many processes of tests and tools would compile EPIC again.
unexport PYTHONDONTWRITEBYTECODE
PYTEST := python -m pytest -q --durations 10 --durations-min 5
# Rooms of slow tests only: not even read by `make check`.
SLOW := ads api control controller reconcile store workloads
PYTHON := src tests plugins tools/demo tools/repeat
LAB := inventories/lab/hosts.yml

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  \033[1m%-19s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Install the locked Python tools (no root)
	@tools/setup

setup-lab: ## Install what the lab and the root tests need too (root)
	@tools/setup --lab

setup-etcd: ## Build the etcd that the store's tests need too (a minute, the first time; Go)
	@tools/setup --etcd

check: setup ## Lint, types and the quick unit tests: about a minute, without root
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target lint types quick

lint:
	ruff format --check -q $(PYTHON)
	ruff check -q $(PYTHON)
	lint-imports --no-cache | tail -n 4
	find bpf -name '*.[ch]' -print0 | xargs -0 -r clang-format --dry-run --Werror
	yamllint -s .
	ansible-lint -q --offline --profile production
	antsibull-changelog lint

types:
	mypy
	cd tools/demo && MYPYPATH=$(CURDIR)/src:. mypy --config-file $(CURDIR)/pyproject.toml *.py

quick:
	$(PYTEST) -n 2 --dist worksteal tests/unit tests/golden -m "not slow" $(addprefix --ignore tests/unit/,$(SLOW))

slow:
	$(PYTEST) -n 2 --dist worksteal tests/unit -m slow

unit: setup quick slow ## Every unit test (minutes)

sanity: setup ## Run ansible-test sanity on the collection as it is released
	tools/sanity

changelog: setup ## Make CHANGELOG.md of the fragments in changelogs/
	antsibull-changelog release --update-existing

golden: setup ## Write the golden outputs again (read the difference before you commit it)
	$(PYTEST) tests/golden --update

bpf: setup-lab ## Compile the tunnel programs
	@$(MAKE) -s -C bpf

bundle: bpf ## Build what hosts are given: wheels, Envoy, the collection
	@tools/bundle

release: bundle ## Make one archive of bundle and collection for sites: dist/epic-VERSION-MACHINE-DIGEST.tar
	@tools/release

lab: setup-lab $(if $(filter etcd,$(LAB_STORE)),setup-etcd) ## Boot the lab's hosts; LAB_STORE=etcd: with an etcd for the control plane
	ansible-playbook -i $(LAB) playbooks/lab.yml
	$(if $(filter etcd,$(LAB_STORE)),ansible-playbook -i $(LAB) playbooks/lab_etcd.yml)

site: lab bundle ## Build the EPIC cluster on the lab's hosts
	ansible-playbook -i $(LAB) site.yml

demo: site ## Build everything, publish a gateway and send requests through it
	@$(BIN)/python tools/demo

# How many examples of the random tests; `make test-long` has the long forms.
test: export EPIC_LIFE_SEQUENCES := 120
test: export EPIC_ADS_SEQUENCES := 15
test: export EPIC_STORE_SEQUENCES := 20
test: export EPIC_STORE_KILLS := 10
test: export EPIC_ETCD := $(if $(or $(shell command -v go),$(wildcard /usr/local/go/bin/go)),required)
test: setup-lab setup-etcd bpf check sanity slow ## Run every test, from unit tests to the lab (root)
	$(PYTEST) -n 2 --dist worksteal tests/integration/playbooks
	$(PYTEST) -n 2 --dist loadfile tests/bpf tests/integration --ignore tests/integration/playbooks --ignore tests/bpf/second_chance
	$(PYTEST) tests/bpf/second_chance
	$(MAKE) demo
	$(PYTEST) tests/e2e
	$(PYTEST) tests/lab/test_decommission.py
	$(PYTEST) tests/lab --ignore tests/lab/test_decommission.py
	molecule test

test-long: export EPIC_ETCD := required
test-long: setup-lab setup-etcd bpf ## Run the long forms of the random tests: 1,000 lives and courses of ADS, 100 of the store, 50 and 300 kills (hours)
	EPIC_LIFE_SEQUENCES=1000 $(PYTEST) -n 2 tests/unit/test_life_sequences.py
	EPIC_ADS_SEQUENCES=1000 $(PYTEST) -n 3 --timeout 10800 tests/unit/ads/test_ads_publication_sequences.py tests/unit/ads/test_ads_stream_sequences.py tests/unit/ads/test_ads_order_sequences.py
	EPIC_STORE_SEQUENCES=100 EPIC_STORE_KILLS=50 $(PYTEST) -n 2 --dist load tests/unit/store/test_store_sequences.py tests/unit/store/test_store_kills.py
	EPIC_CONTROL_KILLS=300 $(PYTEST) tests/integration/control/test_control_kills.py --timeout 3600

repeat: ## Run every test ten times, each with its own log (hours, root); ARGS="--times 3 --busy make e2e", ARGS=--help
	@tools/repeat $(ARGS)

e2e: site ## Run the journeys on the lab
	$(PYTEST) tests/e2e

e2e-etcd: ## Run demo and journeys on a new lab whose control plane keeps its objects in etcd
	$(MAKE) clean-lab
	$(MAKE) demo LAB_STORE=etcd
	$(PYTEST) tests/e2e
	$(MAKE) clean-lab

bench: site ## Measure the figures of docs/benchmarks.md
	@$(BIN)/python tests/bench/run.py

bench-transport: bpf ## Measure the tunnel against plain routing and VXLAN (root); ARGS=--quick is a smoke test
	@$(BIN)/python tests/bench/transport $(ARGS)

bench-second-chance: bpf ## Measure second chance on four EPIC nodes in namespaces (root); ARGS=--quick is a smoke test
	@$(BIN)/python tests/bench/second_chance $(ARGS)

bench-agent: bpf ## Measure an agent with 10,000 tunnels and 100,000 endpoints (root)
	@$(BIN)/python tests/bench/agent_change.py
	@$(BIN)/python tests/bench/agent_siblings.py
	@$(BIN)/python tests/bench/agent_scale.py
	@$(BIN)/python tests/bench/ready_checks.py
	@$(BIN)/python tests/bench/xds_sockets.py
	@$(BIN)/python tests/bench/xds_sockets.py 1000

bench-store: setup-etcd ## Measure the store's engines: commits, gets, lists, watches (3 minutes)
	@$(BIN)/python tests/bench/store.py

bench-core: ## Measure the cache and the ADS of 1,000 gateways and 100,000 endpoints, and what checking an object takes
	@$(BIN)/python tests/bench/cache.py
	@$(BIN)/python tests/bench/kinds.py
	@$(BIN)/python tests/bench/envoy_build.py
	@$(BIN)/python tests/bench/ads_change.py

bench-control: setup-etcd ## Measure epic-control at 1,000 gateways and 100,000 endpoints, and what one account makes it do (10 minutes); ARGS=--etcd: on etcd too
	@$(BIN)/python tests/bench/control.py $(ARGS)
	@$(BIN)/python tests/bench/api_requests.py
	@$(BIN)/python tests/bench/route_links.py

bench-mirror: ## Measure a Linux host's mirror at 10,000 objects (3 minutes)
	@$(BIN)/python tests/bench/mirror.py

test-second-chance: bpf ## Change next hops under 400 connections, also while instances are drained, upgraded and moved (6 minutes; root)
	EPIC_CHURN_SECONDS=60 $(PYTEST) -s tests/bpf/second_chance/test_under_load.py tests/bpf/second_chance/test_planned_work.py

test-kernels: bpf ## Run the tunnel's tests on older kernels in virtual machines (root); ARGS=--help lists them
	@$(BIN)/python tests/kernels/run.py $(ARGS)

clean-lab: setup ## Remove the lab and all it left
	ansible-playbook -i localhost, playbooks/lab_clean.yml

clean: ## Remove what was built (not the lab)
	rm -rf build dist src/epic/bpf/gue.bpf.o
