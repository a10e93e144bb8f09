# What people and CI run. Everything happens in .venv; the machine's Python is only asked to make it.

BIN := .venv/bin
STAMP := .venv/.set-up
# The newest Python that is at least 3.11; looked for only where .venv is made.
PYTHONS := python3.13 python3.12 python3.11 python3
PYTHON = $(shell for python in $(PYTHONS); do \
  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$python"; break; }; done)
# Two processes of tests, each with embedded servers of its own: most tests wait more than they compute. Two of Apache
# Kafka beside them are too much for two cores. The tests of a file stay together, and so do those that share a
# deployment; in the order that was drawn, so that deployments come last.
SIDE_BY_SIDE := -n 2 --dist loadgroup --no-loadscope-reorder

# What CI leaves to the embedded servers, so that it ends in time on a machine of which others take half: three of the four
# points of conformance, and what is about pages, examples and the command line and not about Kafka or Redis.
BRIEFLY := PERDURE_TEST_POINTS=replay-3
ELSEWHERE := $(addprefix --ignore=tests/,examples load pages testing worker/cli)

.DEFAULT_GOAL := help
.PHONY: help setup check format test test-servers simulate soak fuzz chaos load demo lock clean

help: ## Show this text
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP) ## Make .venv with Perdure, its embedded servers and the tools, all at pinned versions

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || test -n "$(PYTHON)" || { \
	  echo "Perdure needs Python 3.11 or later; looked for: $(PYTHONS). Install one, for example with" >&2; \
	  echo "apt-get install python3 python3-venv (Debian 12) or brew install python (macOS)." >&2; \
	  exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt pip hatchling
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --group dev --editable '.[embedded]'
	@touch $(STAMP)

check: setup ## Lint (bandit's rules, too), format, types, the shape of the code, the lock
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p perdure
	$(BIN)/mypy tests examples benchmarks _perdure_pytest.py
	$(BIN)/pytest -q tests/test_tidy.py tests/test_lock.py

format: setup ## Mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: setup ## Run the suite on the embedded servers (Valkey and a Kafka-protocol broker, out of wheels)
	$(BIN)/pytest $(SIDE_BY_SIDE) -m "not servers"

test-servers: setup ## Run every test that reaches a server on Apache Kafka 4.1 and redis-server (needs Java and Maven); BRIEF=1: fewer
	PERDURE_TEST_SERVERS=apache $(if $(BRIEF),$(BRIEFLY)) $(BIN)/pytest -m "touches_servers or servers" $(if $(BRIEF),$(ELSEWHERE))

soak: setup ## Run random programs on workers that are killed: make soak MINUTES=10 [SEED=...]
	$(BIN)/python -m tests.conformance.soak --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED))

fuzz: setup ## Feed every reader of others' bytes with what is nearly right: make fuzz SECONDS=60 [SEED=...]
	$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),60) $(if $(SEED),--seed $(SEED))

simulate: setup ## Simulate the engine, its servers and all that goes wrong, by seeds: make simulate SEEDS=10000 [SEED=...]
	$(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),1000) $(if $(SEED),--seed $(SEED))

chaos: setup ## Strike workers, servers and the network at random: make chaos MINUTES=10 [SEED=...] [SERVERS=embedded]
	$(BIN)/python -m tests.chaos --minutes $(or $(MINUTES),10) --servers $(or $(SERVERS),apache) $(if $(SEED),--seed $(SEED))

load: setup ## Load a fleet and judge what comes of it: make load SCENARIO=backlog [RECORDS=... | MINUTES=...] [SERVERS=apache]
	$(BIN)/python -m tests.load $(SCENARIO) $(if $(RECORDS),--records $(RECORDS)) $(if $(MINUTES),--minutes $(MINUTES)) \
	  $(if $(SERVERS),--servers $(SERVERS)) $(if $(JSON),--json $(JSON))

demo: setup ## Kill a worker in the middle of a payment and watch the invocation finish elsewhere
	$(BIN)/python -m examples.demo

lock: ## Resolve all dependencies anew and write constraints.txt
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --upgrade pip hatchling
	.venv-lock/bin/python -m pip install --quiet --no-build-isolation --group dev --editable '.[embedded]'
	{ echo '# Everything that Perdure, its embedded servers and its tools install. Written by: make lock'; \
	  .venv-lock/bin/python -m pip freeze --all --exclude-editable | grep -v '^setuptools=='; } > constraints.txt
	rm -rf .venv-lock

clean: ## Remove what setup, tests and the demo leave, fetched servers included
	rm -rf .venv .venv-lock .servers .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
