# make demo: see it work    make test: prove it    make check: what a change must pass
# make dist: the program to install, target/dist/versand
# make fire: nothing lost, nothing doubled under random faults (SEEDS=1-100 RECIPIENTS=2000 LEASE_MS=1000)
# make fuzz: random input for what reads strangers' bytes, each target for FUZZ_SECONDS=600
# make bench: ours beside the wire and beside peers (ARGS="--peers --variants --curve --plots"; npm for BullMQ)
# make guard: instructions of each message, against those that were kept (ARGS=--write keeps the new ones)
# Arguments of the demo: make demo ARGS="--help"

export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)

.PHONY: help demo test dist fire fuzz bench guard check

help:
	@sed -n '1,7s/^# //p' Makefile

demo:
	@scripts/setup.sh run
	cargo run --profile demo -- demo $(ARGS)

dist:
	@scripts/setup.sh run
	cargo build --profile dist --bin versand

test:
	@scripts/setup.sh test
	cargo test --no-fail-fast $(ARGS)

fire:
	@scripts/setup.sh test
	SEEDS="$(SEEDS)" RECIPIENTS="$(RECIPIENTS)" LEASE_MS="$(LEASE_MS)" cargo test --release --test suite fire::many_seeds -- --ignored --nocapture

# -s none: nothing here is unsafe, and without the address sanitizer it is three times as fast
fuzz:
	@scripts/setup.sh fuzz
	cd fuzz && for target in $$(cargo +nightly fuzz list); do \
		mkdir -p corpus/$$target && \
		cargo +nightly fuzz run -s none $$target corpus/$$target seeds/$$target -- -max_total_time=$(or $(FUZZ_SECONDS),600) -timeout=10 || exit 1; \
	done

bench:
	@scripts/setup.sh test
	cargo build --profile dist --bin versand --examples
	/usr/bin/python3 benches/run.py $(ARGS)

guard:
	@scripts/setup.sh guard
	cargo build --release --example guard
	/usr/bin/python3 benches/guard.py $(ARGS)

check:
	@scripts/setup.sh check
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items
	cargo deny --locked check licenses bans sources
	cargo test --no-fail-fast $(ARGS)
