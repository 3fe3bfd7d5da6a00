# Cloister: `make` lists the targets. Each installs what it needs first (tools/prepare), into the cache or as Debian packages.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/cloister
export CARGO_TARGET_DIR ?= $(CACHE)/target
export UV_PROJECT_ENVIRONMENT := .venv
export PATH := $(CACHE)/tools/bin:$(PATH)
# The tests start hundreds of processes: byte code is compiled once.
unexport PYTHONDONTWRITEBYTECODE

PREPARE := tools/prepare
NETWORK := haproxy nftables iproute2 iputils-ping tcpdump tshark nmap curl nghttp2-client openssl procps
IDENTITY := xmlsec1 chromium
BIN := .venv/bin
PYTEST ?=
FUZZ_SECONDS ?= 30

# Rust: one profile for checks (dev), one for what runs (release).
.PHONY: help
help: ## list the targets
	@echo "make TARGET, of:"; grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16 | sed 's/^/  /'

.PHONY: demo
demo: build ## show the whole thing on real services (IDP=keycloak: people sign in there; CHECK=1: end by itself, fail if anything is not as expected)
	@$(PREPARE) $(IDP) system $(NETWORK) postgresql postgresql-client $(if $(IDP),$(IDENTITY))
	@exec $(BIN)/python demo/run.py $(if $(CHECK),--check) $(if $(IDP),--idp $(IDP))

.PHONY: test
test: test-rust test-python fuzz ## all tests: Rust, Python, end to end, fuzz (TRIALS=20, FULL=1 for all trials)

.PHONY: test-rust
test-rust: ## tests of the crates
	@$(PREPARE) rust
	cargo test --workspace --quiet

tests/idp/node_modules: tests/idp/package-lock.json
	@$(PREPARE) npm tests/idp

.PHONY: test-python
test-python: build bench-load tests/idp/node_modules ## tests of the package and of whole processes (PYTEST="-k name" picks)
	@$(PREPARE) system $(NETWORK) $(IDENTITY)
	$(BIN)/pytest -n 2 --dist loadfile tests/unit $(PYTEST) || [ $$? = 5 ]
	$(BIN)/pytest tests/e2e $(PYTEST) || [ $$? = 5 ]

.PHONY: test-idp
test-idp: build ## sign-in at a real Keycloak (fetched once, kept in the cache)
	@$(PREPARE) keycloak system $(IDENTITY)
	$(BIN)/pytest tests/idp $(PYTEST)

.PHONY: exam
exam: build tests/idp/node_modules ## the tables of NIST SP 1800-35D against real processes (FULL=1: every row; ROWS=DIR: another folder of the same form)
	@$(PREPARE) system $(NETWORK)
	@exec $(BIN)/python tests/exam/run.py $(if $(ROWS),--rows "$(abspath $(ROWS))")

.PHONY: test-ssrf
test-ssrf: ## every textual form of FORMS=FILE must lead no connector to a forbidden address
	@$(PREPARE) rust
	FORMS="$(abspath $(or $(FORMS),tests/data/attacks/ssrf.json))" cargo test --quiet -p cloister-core --test ssrf -- --nocapture

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZ_SECONDS=30
	@$(PREPARE) tools rust system g++
	tools/fuzz $(FUZZ_SECONDS)

.PHONY: lint
lint: .venv ## ruff, mypy, import-linter, rustfmt, clippy, cargo-deny
	@$(PREPARE) rust
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check . || { echo 'run `make fmt`'; exit 1; }
	$(BIN)/mypy
	MYPYPATH=src:.:tests:tests/e2e:demo $(BIN)/mypy bench/*.py demo/*.py tests/exam/*.py tests/e2e/netlab.py tests/e2e/deployment.py
	PYTHONPATH=src $(BIN)/lint-imports --no-logo
	cargo fmt --check >/dev/null || { echo 'run `make fmt`'; cargo fmt --check | head -40; exit 1; }
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	tools/deny

.PHONY: fmt
fmt: .venv ## put all code in its form
	@$(PREPARE) rust
	$(BIN)/ruff check --quiet --fix . || true
	$(BIN)/ruff format --quiet .
	cargo fmt

.PHONY: bench
bench: build bench-load ## ratios against a fixed baseline of two TLS hops (QUICK=1: a short look); results as JSON
	@$(PREPARE) system $(NETWORK)
	@exec $(BIN)/python bench/run.py $(if $(QUICK),--quick)

.PHONY: bench-revocation
bench-revocation: build ## how long a session outlives its cause, cause by cause, and among 10,000 (QUICK=1: a short look); results as JSON
	@$(PREPARE) system $(NETWORK)
	@exec $(BIN)/python bench/revocation.py $(if $(QUICK),--quick)

.PHONY: bench-decisions
bench-decisions: build ## what a decision costs, and how many session requests one core answers
	@exec $(BIN)/python bench/decisions.py $(if $(QUICK),--quick)

.PHONY: wheel
wheel: .venv ## build the wheel into dist/
	@$(PREPARE) rust
	$(BIN)/maturin build --release --locked --out dist

.PHONY: image
image: wheel ## build the container image into build/image and try it (BASE=IMAGE; else a Debian made here; needs root)
	@$(PREPARE) system buildah mmdebstrap
	tools/image

.PHONY: docs
docs: .venv ## build the pages for users into build/docs
	@uv sync --quiet --no-install-project --inexact --group docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --site-dir build/docs
	@echo "open build/docs/index.html"

.PHONY: build
build: .venv ## build the Rust extension into the source tree (release)
	@$(PREPARE) rust
	@$(BIN)/maturin develop --release --locked --uv --quiet

.PHONY: bench-load
bench-load:
	@$(PREPARE) rust
	@cargo build --release --locked --quiet -p cloister-load

.venv: pyproject.toml uv.lock tools/tools.txt
	@$(PREPARE) tools
	@uv sync --locked --no-install-project --inexact --quiet
	@touch .venv
