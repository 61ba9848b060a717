# make demo: run the demo (ARGS="--help" lists its options)
# make test: run all tests    make check: run all checks that a change must pass
# make dist: build the program to install, target/dist/versand
# make worlds: check the protocol in larger models than make test does; takes minutes
# make fire: nothing lost, nothing doubled under random faults (SEEDS=1-100 RECIPIENTS=2000 LEASE_MS=1000)
# make fuzz: random input for the readers of foreign bytes, each target for FUZZ_SECONDS=600
# make bench: Versand, smtp-source and peers side by side (ARGS="--peers --variants --curve --plots"; BullMQ needs npm)
# make guard: compare the instructions per message with the stored ones (ARGS=--write stores the new ones)

export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)

.PHONY: help demo test dist worlds fire fuzz bench guard check

help:
	@sed -n '1,8s/^# //p' Makefile

demo:
	@scripts/setup.sh run
	cargo run --profile demo -- demo $(ARGS)

dist:
	@scripts/setup.sh run
	cargo build --profile dist --bin versand

test:
	@scripts/setup.sh test
	@echo "make test: all tests; after the build four to seven minutes on two cores"
	cargo test --no-fail-fast $(ARGS)

worlds:
	@scripts/setup.sh run
	cargo test --release --test suite protocol:: -- --ignored

fire:
	@scripts/setup.sh test
	SEEDS="$(SEEDS)" RECIPIENTS="$(RECIPIENTS)" LEASE_MS="$(LEASE_MS)" cargo test --release --test suite faults::random::many_seeds -- --ignored --nocapture

# -s none: there is no unsafe code here, and without the address sanitizer fuzzing is three times as fast
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
	cargo check --locked --manifest-path fuzz/Cargo.toml --target-dir target
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items
	cargo deny --locked check licenses bans sources
	@scripts/advisories.sh
	cargo test --no-fail-fast $(ARGS)
