"""make bench: ours beside the wire and beside peers, on one machine in one run.

Every figure is the median of interleaved repetitions, with its range; every ratio is taken repetition by repetition. Results go to
target/bench/results.json."""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess

import peers
import rows
from parts import ROOT, Redis, Sink

OUT = ROOT / "target/bench"


def table(title, figures):
    print(f"\n{title}")
    width = max(len(name) for name in figures)
    for name, values in figures.items():
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"  {name:<{width}}  {middle:>12,.3f}   ({low:,.3f} .. {high:,.3f})")


def gather(results, row, answer):
    for name, value in answer.items():
        results.setdefault(row, {}).setdefault(name, []).append(value)


def ratios(results, over, under, name="per_s"):
    return [a / b for a, b in zip(results[over][name], results[under][name])]


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--messages", type=int, default=100_000)
    arguments.add_argument("--repetitions", type=int, default=3)
    arguments.add_argument("--peers", action="store_true", help="BullMQ, Celery and naive apalis, too")
    arguments.add_argument("--curve", action="store_true", help="10 k, 100 k and 1 M recipients")
    arguments.add_argument("--variants", action="store_true", help="everysec, and two daemons")
    arguments = arguments.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    results, n = {}, arguments.messages
    with Sink() as sink:
        size = int(rows.us(sink.port, 1000)["bytes_on_the_wire"])
        for _ in range(arguments.repetitions):
            gather(results, "wire", rows.wire(sink.port, n, size))
            gather(results, "us", rows.us(sink.port, n))
            gather(results, "bare", rows.bare(sink.port, n, size))
            if arguments.variants:
                more = "[send]\nworkers = 64\nchunks_in_flight = 64\n"
                gather(results, "us, everysec", rows.us(sink.port, n, fsync="everysec", more=more))
                gather(results, "us, two daemons", rows.us(sink.port, n, daemons=2))
            if arguments.peers:
                for name, peer in peers.ALL.items():
                    with Redis() as redis:
                        gather(results, name, peer(redis, sink.port, size))
        gather(results, "idle", rows.idle(sink.port))
        if arguments.curve:
            for recipients in (10_000, 100_000, 1_000_000):
                gather(results, f"us, {recipients:,} recipients", rows.us(sink.port, recipients))
    for row, figures in results.items():
        table(row, figures)
    repeated = [row for row in results if row != "us" and len(results[row].get("per_s", ())) == arguments.repetitions]
    compared = {f"us / {row}": ratios(results, "us", row) for row in repeated}
    table("messages per second, ratios", compared)
    machine = {"cores": os.cpu_count(), "kernel": platform.release(), "processor": processor(), "revision": revision()}
    figures = {"machine": machine, "messages": n, "bytes": size, "rows": results, "ratios": compared}
    (OUT / "results.json").write_text(json.dumps(figures, indent=1))
    print(f"\n{n:,} messages of {size} bytes; {machine}; all figures in {OUT / 'results.json'}")


def processor():
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def revision():
    return subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
