"""make guard: compares the instructions per message with those stored in guard.json.

Instructions do not depend on the speed or the load of the machine. callgrind counts them in two runs
of different length, so that start and end cancel out. The exit code is 1 if a figure is above the
stored one by more than the allowance. `--write` stores the counted figures."""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

from parts import BUILT, LIMIT_S, Redis, Sink

KEPT = pathlib.Path(__file__).with_name("guard.json")
# the plain release build: the stored figures belong to it
GUARD = str(BUILT.parent / "release/examples/guard")
ALLOWANCE = 0.10
CALLGRIND = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]


def counted(words):
    return int(re.search(r"Collected : (\d+)", words).group(1))


def counted_here(*work):
    """Counts the instructions of the program that does the work."""
    done = subprocess.run([*CALLGRIND, GUARD, *map(str, work)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S)
    if done.returncode:
        raise SystemExit(f"guard {work}: {done.stderr}")
    return counted(done.stderr)


def rendering(n):
    return counted_here("render", n)


def ledger(n):
    with Redis() as redis:
        return counted_here("ledger", n, redis.url)


def ledger_in_redis(n):
    """Counts the instructions of Redis itself, which runs the scripts."""
    with tempfile.TemporaryFile("w+") as words:
        with Redis(under=CALLGRIND, stderr=words) as redis:
            subprocess.run([GUARD, "ledger", str(n), redis.url], check=True, stdin=subprocess.DEVNULL, timeout=LIMIT_S)
        words.seek(0)
        return counted(words.read())


def dialogue(n):
    with Sink() as sink:
        return counted_here("smtp", n, sink.port)


# name: what is counted, and the number of messages in the short and the long run
WORK = {
    "rendering": (rendering, 200, 600),
    "ledger, daemon": (ledger, 2000, 12_000),
    "ledger, Redis": (ledger_in_redis, 2000, 12_000),
    "SMTP dialogue": (dialogue, 500, 2500),
}


def measured():
    return {name: round((count(many) - count(few)) / (many - few)) for name, (count, few, many) in WORK.items()}


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--write", action="store_true", help="store the counted figures")
    arguments = arguments.parse_args()
    figures = measured()
    if arguments.write:
        KEPT.write_text(json.dumps(figures, indent=1) + "\n")
    kept, too_many = json.loads(KEPT.read_text()), []
    for name, figure in figures.items():
        change = figure / kept[name] - 1
        print(f"{name:<16} {figure:>9,} instructions per message, stored {kept[name]:>9,}: {change:+.1%}")
        if change > ALLOWANCE:
            too_many.append(name)
        elif change < -ALLOWANCE:
            print(f"{'':<16} fewer: store this with --write, or a later loss stays unseen")
    if too_many:
        sys.exit(f"more than {ALLOWANCE:.0%} above the stored figures: {', '.join(too_many)}")


if __name__ == "__main__":
    main()
