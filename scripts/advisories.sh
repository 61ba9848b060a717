#!/bin/sh
# Looks for advisories about the crates in Cargo.lock. Their database comes from the network.
#
# Without the network an earlier copy of the database is used. Without a copy the check is skipped,
# and says so; ADVISORIES=required makes that an error.
set -eu
cd "$(dirname "$0")/.."

databases="${CARGO_HOME:-$HOME/.cargo}/advisory-dbs"
say() { echo "advisories: $*" >&2; }

# A fetch that fails is no finding, so it is apart from the check.
if errors=$(timeout 120 cargo deny --locked fetch db 2>&1); then
    say "the database is up to date"
elif ls -d "$databases"/*/ >/dev/null 2>&1; then # a failed fetch leaves a lock file
    say "the database cannot be fetched; its last copy is used"
elif [ "${ADVISORIES:-}" = required ]; then
    say "the database cannot be fetched, and there is no copy: $(echo "$errors" | tail -n 1)"
    exit 1
else
    say "SKIPPED: the database cannot be fetched, and there is no copy"
    exit 0
fi
exec cargo deny --locked --offline check advisories
