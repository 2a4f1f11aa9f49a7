# Bootstorm: one target each for the things one does with a checkout. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help

.PHONY: help setup build demo test e2e bench bench-http bench-tftp bench-store bench-dhcp bench-dns bench-storm bench-runtimes spec lint fmt clean-lab

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install the system packages that building and testing need
	@tests/lab/setup.sh

build: ## the release binaries
	@. tests/lab/toolchain.sh; cargo build --release --workspace --bins

demo: ## bare machines become running servers, then a storm of a thousand
	@tests/lab/demo.sh

test: ## every check: format, lints, documentation, tests, guests
	@tests/lab/test.sh

e2e: ## only the tests that need machines, the largest image included
	@tests/lab/e2e.sh

bench: bench-http bench-tftp bench-store bench-dhcp bench-dns ## every suite beside its peers (QUICK=1: shorter)

bench-store: ## the content store: cold readers, chunks taken in beside zstd and b3sum
	@bench/run.sh store

bench-http: ## HTTP beside nginx, lighttpd and static-web-server
	@bench/run.sh http

bench-tftp: ## TFTP beside atftpd, rs-tftpd, dnsmasq and tftpd-hpa
	@bench/run.sh tftp

bench-dhcp: ## DHCP beside Kea and dnsmasq
	@bench/run.sh dhcp

bench-dns: ## DNS beside NSD, Knot and BIND
	@bench/run.sh dns

bench-storm: ## whole nodes by the thousand beside the stacks that people use; takes an hour
	@bench/run.sh storm

bench-runtimes: ## a small sender of HTTP on our driver, on tokio-uring and on tokio
	@bench/runtimes/run.sh

spec: ## write the committed ratios into docs/SPECIFICATION.md
	@. tests/lab/toolchain.sh; cargo run --quiet --package bootstorm-bench --bin bench -- specification

lint: ## format and lints only
	@. tests/lab/toolchain.sh; cargo fmt --all --check && cargo clippy --workspace --all-targets -- -D warnings

fmt: ## format the sources
	@. tests/lab/toolchain.sh; cargo fmt --all

clean-lab: ## drop the cached images and boot environments
	rm -rf .lab
