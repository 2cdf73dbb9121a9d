# What one does with this project, by hand and in CI. Each stage says what it runs and how long it took.
#
#   make demo [ARGS=--once]    throwaway databases, a proxy, a guided tour
#   make check                 formatting, lints, documentation, unit and property tests
#   make test                  all of check, then everything against real servers
#   make bench                 latency and throughput beside a direct connection, PgBouncer and MySQL Router
#   make fuzz [FUZZ_SECONDS=60] [FUZZ_TARGETS="..."]    every target of tests/fuzz, one after another
#   make provision             what all of these need on this machine (Debian; root)

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
CARGO_FLAGS ?= --locked
ARGS ?=
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?=

target_dir := $(or $(CARGO_TARGET_DIR),target)
stage := .ci/stage
# nextest where it is, else cargo's own runner. Not for tests/it: its tests share the servers of one process.
test := $(CARGO) $(if $(shell command -v cargo-nextest),nextest run,test) $(CARGO_FLAGS)

# Property tests try the same cases on every run, so that a failure belongs to the change that caused it; then others for
# a while (`random`), by a seed that is printed. More of them: PROPTEST_RNG_SEED=$RANDOM PROPTEST_CASES=5000 make check
export PROPTEST_RNG_SEED ?= 1

# Clippy looks for it from the folder it runs in: give it the whole path.
export CLIPPY_CONF_DIR := $(CURDIR)/.ci

.PHONY: help demo test check bench fuzz provision
.NOTPARALLEL:

help:
	@sed -n 's/^#   //p' Makefile

provision:
	@$(stage) provision deploy/provision

demo: provision
	@$(stage) build $(CARGO) build --release $(CARGO_FLAGS)
	@$(target_dir)/release/sluicegate demo $(ARGS)

check:
	@$(stage) format $(CARGO) fmt --check
	@$(stage) clippy $(CARGO) clippy --all-targets $(CARGO_FLAGS) -- -D warnings
	@$(stage) fuzz-check $(CARGO) check --manifest-path tests/fuzz/Cargo.toml --target-dir $(target_dir) --bins $(CARGO_FLAGS)
	@RUSTDOCFLAGS="-D warnings $${RUSTDOCFLAGS:-}" $(stage) doc $(CARGO) doc --no-deps --document-private-items $(CARGO_FLAGS)
	@$(stage) unit $(test) --lib --bins
	@$(stage) random env PROPTEST_RNG_SEED=$$RANDOM$$RANDOM RUST_BACKTRACE=0 $(test) --lib

test: provision check
	@$(stage) servers $(CARGO) test $(CARGO_FLAGS) --test '*'
	@$(stage) doctest $(CARGO) test --doc $(CARGO_FLAGS)

bench: provision
	@$(stage) bench $(CARGO) bench --bench end_to_end $(CARGO_FLAGS)
	@$(stage) bench-mysql $(CARGO) bench --bench end_to_end_mysql $(CARGO_FLAGS)

fuzz: provision
	@command -v cargo-fuzz >/dev/null || $(stage) cargo-fuzz $(CARGO) install cargo-fuzz --locked
	@targets="$(FUZZ_TARGETS)"; \
	[[ -n $$targets ]] || targets=$$($(CARGO) fuzz list --fuzz-dir tests/fuzz); \
	[[ -n $$targets ]] || { echo "fuzz: tests/fuzz has no target" >&2; exit 1; }; \
	for target in $$targets; do \
	  $(stage) "fuzz $$target" .ci/fuzz "$$target" $(FUZZ_SECONDS); \
	done
