# make demo: see it work    make test: prove it    make check: what a change must pass
# Arguments of the demo: make demo ARGS="--help"

export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)

.PHONY: help demo test check

help:
	@sed -n '1,2s/^# //p' Makefile

demo:
	@scripts/setup.sh run
	cargo run --release -- demo $(ARGS)

test:
	@scripts/setup.sh test
	cargo test --no-fail-fast $(ARGS)

check:
	@scripts/setup.sh check
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items
	cargo deny --locked check licenses bans sources
	cargo test --no-fail-fast $(ARGS)
