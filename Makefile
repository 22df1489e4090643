# Sluice. `make` alone prints the targets.

SHELL := /bin/sh
.DEFAULT_GOAL := help
CARGO ?= cargo
E2E := target/debug/sluice-e2e
# Programs that the checks of the chart use: helm, kubectl, promtool, the control plane.
TOOLS_PATH = PATH="$$(e2e/tools/fetch --path)/bin:$$PATH"
FILTER ?=
N ?= 100
# Held templates of bench-policy.
ROLLOUTS ?= 1000
# How often bench-harm plays each change.
REPEAT ?= 20
# Bad changes of bench-bound.
RUNS ?= 36
# Commits of bench-scan.
COMMITS ?= 10000
# Benchmarks measure what is shipped; a PROFILE of the environment counts for nothing.
PROFILE :=
# What is built: a first demo does not wait for what it does not use.
PACKAGES := --workspace
demo: PACKAGES := -p sluice-controller -p sluice-cli -p sluice-e2e
BENCHES := bench-harm bench-bound bench-abort bench-fleet bench-policy bench-scan
$(BENCHES): PROFILE := --release
$(BENCHES): E2E := target/release/sluice-e2e

.PHONY: help preflight tools build fmt fmt-check clippy lint deny crds chart drift unit chart-test test test-kill \
	demo bench-harm bench-bound bench-abort bench-fleet bench-policy bench-scan bench-decisions image clean clean-tools prepare

help: ## Print the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

preflight: ## Name what this machine lacks, and the package that has it
	@e2e/tools/preflight

tools: preflight ## Fetch and build the tools of the local cluster (8 minutes the first time on 2 cores, then nothing)
	@e2e/tools/fetch

build: ## Build everything (debug)
	$(CARGO) build --workspace --locked

# The Go build of the control plane is the slowest part of a first start: it begins first, cargo beside it.
prepare: preflight
	@e2e/tools/fetch & tools=$$!; \
	$(CARGO) build $(PACKAGES) --locked $(PROFILE); built=$$?; \
	wait $$tools; fetched=$$?; \
	[ $$built -eq 0 ] && [ $$fetched -eq 0 ]

demo: ## Good and bad changes on a real local cluster, told as they happen
	@echo "Starts a local Kubernetes (no root, no Docker), installs Sluice with Helm and plays good and bad changes"
	@echo "under client load. The first time it builds the tools and the program: about 12 minutes until the first"
	@echo "scenario on 2 cores; later less than 8 minutes for all. The report will be target/demo/report.json."
	@$(MAKE) --no-print-directory prepare PACKAGES="$(PACKAGES)"
	@$(E2E) demo

test: ## Format, lints, drift, unit tests, chart tests, end-to-end scenarios (FILTER=name for one scenario)
	@echo "Checks format and lints, generated files, unit tests, the chart, then the scenarios on a local Kubernetes"
	@echo "(no root, no Docker): less than 20 minutes, the first time less than 45 on 2 cores."
	@$(MAKE) --no-print-directory prepare
	@$(MAKE) --no-print-directory fmt-check clippy drift unit chart-test
	@$(E2E) test $(FILTER)

unit:
	$(CARGO) test --workspace --locked

chart-test:
	@$(TOOLS_PATH) python3 charts/test.py
	@$(TOOLS_PATH) python3 charts/test_policies.py
	@python3 operator/image/test.py
	@lua=$$(command -v lua5.1 || command -v lua5.4 || command -v lua || command -v luajit); \
	if [ -n "$$lua" ]; then "$$lua" integrations/argocd/test.lua; \
	else echo "Argo CD's health checks: not tested, this machine has no Lua"; fi

test-kill: prepare ## Promotion, abort, revert and uninstall with the controller killed after every single step
	@$(E2E) test-kill

bench-harm: prepare ## The two bad changes 20 times each (REPEAT=20): mean excess failures with intervals
	@$(E2E) bench-harm --repetitions $(REPEAT)

bench-bound: prepare ## Bad changes (RUNS=36): whether the harm that clients count is within what `plan` foretold
	@$(E2E) bench-bound --runs $(RUNS)

bench-abort: prepare ## 10 aborts: from the deciding scrape to weight 0 in the router
	@$(E2E) bench-abort

bench-fleet: prepare ## N rollouts at once (N=100, UNTHROTTLED=1): time to the first step, to abort, requests, CPU, memory
	@$(E2E) bench-fleet --rollouts $(N) $(if $(UNTHROTTLED),--unthrottled)

bench-policy: prepare ## One edit of a policy over N held templates (ROLLOUTS=1000): time to the last new plan, writes, memory
	@$(E2E) bench-policy --rollouts $(ROLLOUTS)

bench-scan: ## A scan of COMMITS commits (COMMITS=10000): its time, the repository's size, what it finds (no cluster)
	$(CARGO) build --release --locked -p sluice-cli -p sluice-e2e
	@$(E2E) bench-scan --commits $(COMMITS)

bench-decisions: ## False aborts, delay and harm of the decisions, on simulated traffic beside peers' rules (no cluster)
	$(CARGO) run --release --locked -p sluice-sim --bin bench-decisions

fmt: ## Format the sources
	$(CARGO) fmt --all

fmt-check:
	$(CARGO) fmt --all --check

clippy:
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

deny:
	@e2e/tools/fetch cargo-deny
	@"$$(e2e/tools/fetch --path cargo-deny)" --locked --log-level error check bans licenses sources

lint: fmt-check clippy deny ## Format, clippy, and what may be among the dependencies

crds: build ## Write crds/ from the Rust types, and the chart's generated files
	target/debug/sluice-controller crds crds
	@$(MAKE) --no-print-directory chart

chart:
	@e2e/tools/fetch
	@$(TOOLS_PATH) python3 charts/generate.py

drift: build
	target/debug/sluice-controller crds --check crds
	@$(TOOLS_PATH) python3 charts/generate.py --check

image: ## An OCI archive of the controller without Docker, and install.yaml beside it
	@python3 operator/image/build.py

clean: ## Remove what was built (target/)
	$(CARGO) clean

clean-tools: ## Remove the tools of the local cluster (in ~/.cache/sluice/tools, or where SLUICE_TOOLS says)
	@e2e/tools/fetch --clean
