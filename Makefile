# What a person does with this checkout. `make` lists it.

CARGO ?= cargo
target := $(abspath $(or $(CARGO_TARGET_DIR),target))
release := $(target)/release/ringway
cargo := $(CARGO) --locked
bench = $(target)/release/ringway-bench --ringway $(release) --out $(target)/bench

# Where Debian keeps ip and sysctl, which an ordinary user's PATH lacks.
export PATH := $(PATH):/usr/sbin:/sbin

.DEFAULT_GOAL := help
.PHONY: help build guest demo test bench bench-quick bench-inside bench-doc bench-build lint soak fuzz fuzz-smoke sanitize ci clean

help: ## list these targets
	@echo 'Ringway: a vhost-user switch for virtual machines'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

build: ## build target/release/ringway
	@scripts/setup build
	$(cargo) build --release -p ringway
	@echo 'built $(release)'

guest: ## build the kernel and initramfs of the test guests (no root needed)
	@scripts/setup demo
	@guest/build

demo: build guest ## two virtual machines on a network: DHCP, names, NAT, a forward, iperf3; about a minute
	@$(CARGO) build --locked -p ringway-tests --bin demo
	@RINGWAY=$(release) $(target)/debug/demo

# Cheap tests first. Whole-program tests run the release binary, one at a time: emulated guests need the whole machine. With
# everything set up, one that is skipped for want of something fails.
test: ## run every test, with the set-up it needs
	@scripts/setup test
	$(cargo) build --release -p ringway
	@guest/build
	@guest/build full
	@guest/build debian
	$(cargo) test --workspace --exclude ringway-tests --no-fail-fast
	RINGWAY=$(release) RINGWAY_PREVIOUS=$$(scripts/previous) RINGWAY_TEST_STRICT=1 $(cargo) test -p ringway-tests --no-fail-fast

bench: bench-build ## measure side by side with testpmd and OVS-DPDK where installed; a quarter of an hour, two idle processors
	$(cargo) bench -p ringway-bench --bench micro -- --out $(target)/bench
	$(bench) switch
	$(bench) cycles
	$(bench) cycles --touched
	$(bench) state

bench-quick: bench-build ## four rows of it in a minute
	$(bench) switch --quick --rounds 3 --seconds 6

bench-inside: ## every row within one process: no peers, huge pages or root needed; half a minute
	$(cargo) bench -p ringway-bench --bench inside

bench-doc: ## put the results of the last bench into docs/PERFORMANCE.md
	@$(CARGO) build --locked --release -p ringway-bench
	$(bench) doc docs/PERFORMANCE.md

bench-build:
	@scripts/setup build
	$(cargo) build --release -p ringway -p ringway-bench

lint: ## format, clippy with warnings denied, shellcheck and cargo-deny where installed
	$(CARGO) fmt --all --check
	$(CARGO) fmt --all --check --manifest-path fuzz/Cargo.toml
	@$(cargo) metadata --quiet --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null
	$(cargo) clippy --workspace --all-targets -- -D warnings
	@! command -v shellcheck >/dev/null || shellcheck -S error scripts/* bench/dns .ci/run guest/build guest/debian/disk guest/debian/files/usr/local/sbin/seed fuzz/run fuzz/write-seeds fuzz/coverage
	@! command -v cargo-deny >/dev/null || $(CARGO) deny --offline check bans licenses sources

soak: ## ten minutes of hostile guests and front-ends, beside two that must not lose a frame; SOAK_SECONDS=N for another time
	@scripts/setup build
	$(cargo) build --release -p ringway
	@$(CARGO) build --locked -p ringway-tests --bin soak
	RINGWAY=$(release) $(target)/debug/soak $(or $(SOAK_SECONDS),600)

fuzz: ## run each fuzz target for ten minutes (FUZZ_SECONDS=600); what they learn stays in fuzz/corpus
	@scripts/fuzz $(or $(FUZZ_SECONDS),600)

fuzz-smoke: ## run each fuzz target for 25 seconds
	@scripts/fuzz 25

sanitize: ## the tests of the data path under AddressSanitizer; needs nightly Rust, ten minutes
	@scripts/sanitize address

ci: ## what the continuous integration runs: lint, test, fuzz-smoke
	@.ci/run

clean: ## remove everything that was built, guests and downloads included
	$(CARGO) clean
	rm -rf target fuzz/target
