# Every target first installs what it needs into .venv (a moment when nothing is missing) and then runs inside it; there
# is nothing to activate. PYTHON is the interpreter that starts the installer, which picks a supported version.
PYTHON ?= python3
ARGS ?=

INSTALL := $(PYTHON) -E -S -m infra.local.install
VENV := .venv/bin

# Python settings in the caller's shell must not affect .venv.
unexport PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONDONTWRITEBYTECODE VIRTUAL_ENV

.DEFAULT_GOAL := help
.PHONY: soak help run demo test test-monitoring test-redis test-clients test-clients-js test-long test-fuzz check fix lock clean chaos
.PHONY: bench bench-quick bench-peers bench-batch bench-interactive bench-overload bench-cold bench-store
.PHONY: bench-ab bench-processes simulate

help: ## Lists the targets
	@sed -n 's/^\([a-z-]*\): ## \(.*\)/  make \1\t\2/p' Makefile

# exec replaces the shell with Python, so that make sees its exit status and Ctrl-C reaches it.
run: ## Starts the service on this machine; Ctrl-C stops it (options: ARGS="--help")
	@$(INSTALL) --with run && exec $(VENV)/python -m infra.local $(ARGS)

demo: ## Starts the service and runs a few sample requests
	@$(INSTALL) --with run && exec $(VENV)/python -m infra.local --demo $(ARGS)

test: ## Runs the tests (options for pytest: ARGS="...")
	@$(INSTALL) --with test && exec $(VENV)/python -m pytest $(ARGS)

test-long: ## Runs the tests that take too long for make test: twenty starts and stops with each engine, a short soak, 13 minutes
	@$(INSTALL) --with test && exec $(VENV)/python -m pytest -m long -s $(ARGS)

test-monitoring: ## Runs the tests of metrics, alerts and dashboards with a real Prometheus (needs Debian's prometheus)
	@$(INSTALL) --with test && exec $(VENV)/python -m pytest -m "monitoring or not monitoring" tests/monitoring $(ARGS)

test-redis: ## Runs the tests of the store and of the whole stack on this machine's redis-server, 5 minutes
	@$(INSTALL) --with test && exec $(VENV)/python -m pytest --store redis tests/shared tests/worker/dispatch \
		tests/worker/consumer tests/integration tests/chaos $(ARGS)

# One environment for each set of libraries with compatible pins.
test-clients: ## Runs real client libraries against the service (options: ARGS="--only cohere --engine vllm")
	@$(INSTALL) --with test && for set in sdks frameworks infinity queues; do \
		$(INSTALL) --with clients-$$set || exit; \
	done && exec $(VENV)/python -m tests.clients $(ARGS)

test-clients-js: ## The same with client libraries for JavaScript (needs node 20 and npm)
	@$(INSTALL) --with test && npm ci --silent --prefix tests/clients/js && exec $(VENV)/python -m tests.clients --js $(ARGS)

test-fuzz: ## Sends thousands of generated requests to the service (options: ARGS="--examples 100 --seed 7")
	@$(INSTALL) --with test && $(INSTALL) --with fuzz && exec $(VENV)/python -m tests.fuzz $(ARGS)

check: ## Format, lint, types and imports; changes nothing
	@$(INSTALL) --with check
	$(VENV)/ruff format --check .
	$(VENV)/ruff check .
	$(VENV)/mypy
	$(VENV)/lint-imports

fix: ## Formats the code and applies the linter's fixes; the only target that changes sources
	@$(INSTALL) --with check
	$(VENV)/ruff format .
	$(VENV)/ruff check --fix .

bench-batch: ## Measures batches: throughput, memory, and interactive calls beside them, 13 to 16 minutes (options: ARGS="--help")
	@$(INSTALL) --with bench && exec $(VENV)/python -m bench.batch $(ARGS)

bench-interactive: ## Measures interactive calls while batch work saturates the worker
	@$(INSTALL) --with test && exec $(VENV)/python -m bench.interactive_under_load $(ARGS)

bench-overload: ## Measures what callers get while ten times the capacity arrives, 6 minutes (options: ARGS="--help")
	@$(INSTALL) --with test && exec $(VENV)/python -m bench.overload $(ARGS)

bench-ab: ## Measures what a change or a setting costs a call, 2 minutes (options: ARGS="--tree ../other" or "--set RERANKQ_TRACING=otlp")
	@$(INSTALL) --with test && exec $(VENV)/python -m bench.side_by_side $(ARGS)

bench-processes: ## Measures calls a second with one and with two processes of the API, 3 minutes (options: ARGS="--help")
	@$(INSTALL) --with test && exec $(VENV)/python -m bench.processes $(ARGS)

bench-store: ## Measures the time and memory that jobs and cached scores take in Redis, 10 seconds (options: ARGS="--help")
	@$(INSTALL) --with test && exec $(VENV)/python -m bench.store_costs $(ARGS)

simulate: ## Simulates scaling: waits and costs under several kinds of traffic, a minute (options: ARGS="--help")
	@$(INSTALL) --with check && exec $(VENV)/python -m bench.simulate_scaling $(ARGS)

bench-cold: ## Compares a cold start with that of vLLM's own server, 4 minutes (options: ARGS="--help")
	@$(INSTALL) --with bench && exec $(VENV)/python -m bench.cold_start $(ARGS)

bench: ## Compares this service with vLLM's own server and with ONNX Runtime, 30 minutes (options: ARGS="--help")
	@$(INSTALL) --with bench && $(INSTALL) --with peers-onnx && exec $(VENV)/python -m bench $(ARGS)

bench-quick: ## A smoke test of make bench: one short round, 8 minutes
	@$(INSTALL) --with bench && $(INSTALL) --with peers-onnx && exec $(VENV)/python -m bench --quick $(ARGS)

bench-peers: ## Compares this service with other rerank servers and libraries, 15 minutes (options: ARGS="--help")
	@$(INSTALL) --with bench && for set in onnx sentence-transformers infinity; do \
		$(INSTALL) --with peers-$$set || exit; \
	done && exec $(VENV)/python -m bench.peers $(ARGS)

lock: ## Regenerates requirements/*.txt (needs uv; newer versions: ARGS=--upgrade)
	@requirements/lock.sh $(ARGS)

clean: ## Throws away .venv, the other environments and the tools' caches
	rm -rf .venv .venv-clients-* .venv-fuzz .venv-peers-* tests/clients/js/node_modules .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

soak: ## Half an hour at a steady load with kills: does anything grow? (options: ARGS="--minutes 5 --picture FILE")
	@$(INSTALL) --with test && exec $(VENV)/python -m tests.soak $(ARGS)

chaos: ## Kills processes, cuts connections and restarts Redis under load; reports lost and duplicate jobs (options: ARGS="--kills 200 --seed 1")
	@$(INSTALL) --with test && exec $(VENV)/python -m tests.chaos $(ARGS)
