"""make bench: compares Versand with the wire and with peers, on one machine in one run.

Figures are medians with their ranges. The senders are measured in interleaved repetitions, and
every ratio is taken repetition by repetition. Results go to target/bench/results.json, pictures to
docs/plots."""

import argparse
import json
import statistics

import hits
import machine
import peers
import pictures
import plots
import rows
import schedule
import tracked
from parts import BATCH, ROOT, Redis, Sink

OUT = ROOT / "target/bench"

# row, figure, at least (1) or at most (-1), bound
BUDGETS = [
    ("us / wire", "ratio", 1, 1.25),
    ("us / wire, batch", "ratio", 1, 1.25),
    ("us / bare", "ratio", 1, 0.7),
    ("us / bullmq", "ratio", 1, 18),
    ("us / celery", "ratio", 1, 50),
    ("us, two daemons / us", "ratio", 1, 0.95),
    ("us, everysec / us", "ratio", -1, 1.1),
    ("us", "cpu_s_per_1000", -1, 0.05),
    ("us", "prepare_per_cpu_s", 1, 100_000),
    ("us", "redis_bytes_each", -1, 80),
    ("first connection", "ms", -1, 50),
    ("network", "us", -1, 1.2),
    *((f"tracking hits, {visitors} visitors", "ratio", 1, 0.6) for visitors in hits.VISITORS),
    ("us / us, untracked", "ratio", 1, 0.85),
    ("history", "ms", -1, 20),
    ("statistics, 1,000,000 recipients", "s", -1, 0.2),
    ("statistics, 1,000,000 recipients", "redis_bytes_each", -1, 30),
    ("idle", "daemon_share_of_a_core", -1, 0.005),
    ("us, 1,000,000 recipients", "recount_s", -1, 0.2),
    ("us, 1,000,000 recipients", "daemon_peak_mb", -1, 150),
    ("us, 1,000,000 recipients", "redis_bytes_each", -1, 80),
]


def table(title, figures):
    print(f"\n{title}")
    width = max(len(name) for name in figures)
    for name, values in figures.items():
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"  {name:<{width}}  {middle:>12,.3f}   ({low:,.3f} .. {high:,.3f})")


def budgets(results):
    print("\nbudgets, by medians")
    for row, name, sign, bound in BUDGETS:
        if values := results.get(row, {}).get(name):
            middle = statistics.median(values)
            word, met = "at least" if sign > 0 else "at most", "met" if sign * (middle - bound) >= 0 else "MISSED"
            print(f"  {row + ', ' + name:<48}  {middle:>12,.3f}   {word} {bound:,}: {met}")


def gather(results, row, answer):
    for name, value in answer.items():
        results.setdefault(row, {}).setdefault(name, []).append(value)


def ratios(results, over, under, name="per_s"):
    return [a / b for a, b in zip(results[over][name], results[under][name])]


def noise(results):
    """The spread of the wire's rate between the repetitions. Versand cannot influence that rate."""
    rates = results["wire"]["per_s"]
    return (max(rates) - min(rates)) / statistics.median(rates)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--messages", type=int, default=100_000)
    arguments.add_argument("--repetitions", type=int, default=3)
    arguments.add_argument("--peers", action="store_true", help="measure BullMQ, Celery and naive apalis, too")
    arguments.add_argument("--curve", action="store_true", help="measure 10 k, 100 k and 1 M recipients")
    arguments.add_argument("--variants", action="store_true", help="measure appendfsync everysec, two daemons, and a network of 20 ms")
    arguments.add_argument("--schedule", action="store_true", help="measure from the due instant to the first connection, also with 10 000 waiting deliveries")
    arguments.add_argument("--plots", action="store_true", help="draw the pictures of docs/performance.md, too")
    arguments = arguments.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    results, drawings, n, host = {}, {}, arguments.messages, machine.describe()
    with Sink() as sink:
        size = int(rows.us(sink.port, 1000)["bytes_on_the_wire"])
        for _ in range(arguments.repetitions):
            gather(results, "wire", rows.wire(sink.port, n, size))
            gather(results, "wire, batch", rows.wire(sink.port, n, size, policy=BATCH))
            gather(results, "us", rows.us(sink.port, n))
            gather(results, "bare", rows.bare(sink.port, n, size))
            gather(results, "us, untracked", rows.us(sink.port, n, tracked=False))
            if arguments.variants:
                more = "[send]\nworkers = 64\nchunks_in_flight = 64\n"
                gather(results, "us, everysec", rows.us(sink.port, n, fsync="everysec", more=more))
                gather(results, "us, two daemons", rows.us(sink.port, n, daemons=2))
                gather(results, "network", rows.network(sink.port, size))
            if arguments.peers:
                for name, peer in peers.ALL.items():
                    with Redis() as redis:
                        gather(results, name, peer(redis, sink.port, size))
                gather(results, "network", peers.lettre_far_away(sink.port, size))
        for figures in rows.first_connection(sink.port):
            gather(results, "first connection", figures)
        gather(results, "idle", rows.idle(sink.port))
        for visitors, figures in hits.hits(sink.port, arguments.repetitions):
            gather(results, f"tracking hits, {visitors} visitors", figures)
        for figures in tracked.history(sink.port):
            gather(results, "history", figures)
        if arguments.schedule:
            for waiting in (0, 10_000):
                for figures in schedule.due_to_connection(sink.port, waiting):
                    gather(results, f"due to first connection, {waiting:,} waiting", figures)
        if arguments.curve:
            for recipients in (10_000, 100_000, 1_000_000):
                gather(results, f"us, {recipients:,} recipients", rows.us(sink.port, recipients))
            for figures in tracked.statistics(sink.port, 1_000_000):
                gather(results, "statistics, 1,000,000 recipients", figures)
        if arguments.plots:
            drawings = pictures.all_of_them(sink.port, size, arguments.repetitions)
    spread = f"noise {noise(results):.1%}"
    compared = {
        f"us / {row}": ratios(results, "us", row)
        for row in results
        if row != "us" and len(results[row].get("per_s", ())) == arguments.repetitions
    }
    for row, figures in results.items():
        table(f"{row} ({spread})", figures)
    table(f"messages per second, ratios ({spread})", compared)
    variants = {f"{row} / us": ratios(results, row, "us") for row in ("us, two daemons", "us, everysec") if row in results}
    budgets(results | {name: {"ratio": values} for name, values in (compared | variants).items()})
    figures = {"machine": host, "machine_line": machine.line(host), "noise": noise(results), "messages": n, "bytes": size}
    figures |= {"repetitions": arguments.repetitions, "rows": results, "ratios": compared, "pictures": drawings}
    (OUT / "results.json").write_text(json.dumps(figures, indent=1))
    print(f"\n{n:,} messages of {size} bytes, {arguments.repetitions} repetitions; noise: the wire's rates are {noise(results):.1%} apart")
    print(f"{machine.line(host)}\nall figures: {OUT / 'results.json'}")
    if drawings:
        for file in plots.draw(json.loads((OUT / "results.json").read_text()), ROOT / "docs/plots"):
            print(f"drawn: {file}")


if __name__ == "__main__":
    main()
