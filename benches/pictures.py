"""The figures of the pictures: throughput while one thing varies.

Each picture compares Versand with the wire and a bare sender. Each measurement takes a few seconds."""

import rows
from parts import Delay, relay

OURS, WIRE, BARE = "Versand, end to end", "smtp-source (the wire)", "a bare pipelining sender"

# value that varies: number of messages, chosen so that each measurement takes a few seconds
CONNECTIONS = {1: 2500, 2: 5000, 5: 10_000, 10: 15_000, 20: 20_000, 50: 20_000}
SIZES = {1000: 20_000, 4200: 20_000, 16_000: 10_000, 64_000: 3000}
ROUND_TRIPS = {0: (20_000, 20_000), 5: (4000, 1000), 20: (1200, 300), 50: (600, 120)}
SESSIONS_FAR = 10


def picture(title, x, log_x, note, repetitions, variants, measure):
    """Measures all variants in turn, as often as `repetitions` says.

`measure` returns the place on the x axis and the rate of each sender."""
    series = {OURS: {}, WIRE: {}, BARE: {}}
    for _ in range(repetitions):
        for variant, messages in variants.items():
            at, rates = measure(variant, messages)
            for name, rate in rates.items():
                series[name].setdefault(at, []).append(rate)
    return {"title": title, "x": x, "y": "messages per second", "log_x": log_x, "note": note, "series": series}


def all_of_them(port, size, repetitions):
    def by_connections(connections, n):
        ours = rows.us(port, n, more=relay(port, connections=connections))["per_s"]
        wire = rows.wire(port, n, size, connections)["per_s"]
        return connections, {OURS: ours, WIRE: wire, BARE: rows.bare(port, n, size, connections)["per_s"]}

    def by_size(wanted, n):
        ours = rows.us(port, n, size=wanted)
        real = int(ours["bytes_on_the_wire"])
        return real, {OURS: ours["per_s"], WIRE: rows.wire(port, n, real)["per_s"], BARE: rows.bare(port, n, real)["per_s"]}

    def by_round_trip(ms, numbers):
        n, few = numbers
        if ms == 0:
            return 0, far_away(port, n, few)
        with Delay(port, ms) as far:
            return ms, far_away(far.port, n, few)

    def far_away(at, n, few):
        ours = rows.us(at, n, more=relay(at, connections=SESSIONS_FAR))["per_s"]
        wire = rows.wire(at, few, size, SESSIONS_FAR)["per_s"]
        return {OURS: ours, WIRE: wire, BARE: rows.bare(at, n, size, SESSIONS_FAR)["per_s"]}

    usual = f"messages of {size} bytes"
    far = f"{usual}, {SESSIONS_FAR} connections, through a proxy that delays (at 0 there is none)"
    return {
        "connections": picture(
            "Throughput and connections", "connections", True, usual, repetitions, CONNECTIONS, by_connections
        ),
        "size": picture(
            "Throughput and size", "bytes of a message", True, "20 connections", repetitions, SIZES, by_size
        ),
        "round_trip": picture(
            "Throughput and distance", "milliseconds of round trip", False, far, repetitions, ROUND_TRIPS, by_round_trip
        ),
    }
