"""The rows of the benchmark: each function sends messages and returns figures."""

import json
import subprocess
import time

from parts import BATCH, BUILT, LIMIT_S, SESSIONS, Daemon, Delay, Door, Redis, relay, run, until

# the parts of a message that a shop might send; 4.2 kB on the wire
PARAGRAPH = (
    "the leaves fall, and so do the prices of {{ product }}: everything that kept us warm in the last winter must go before the "
    "next one comes, from the thick socks of {{ city }} to the scarves that nobody dared to wear. "
)
HTML = (
    '<html><body><h1>Dear {{ name }}</h1>{% for i in range(7) %}<p style="font-family:sans-serif">' + PARAGRAPH + "</p>{% endfor %}"
    '<p><a href="https://shop.example/offer?who={{ customer }}">Have a look</a></p>'
    '<p>{{ note }} <a href="https://shop.example/unsubscribe?who={{ customer }}">Unsubscribe</a></p></body></html>'
)
TEXT = (
    "Dear {{ name }},\n\n{% for i in range(7) %}" + PARAGRAPH + "\n\n{% endfor %}https://shop.example/offer?who={{ customer }}\n\n"
    "{{ note }} https://shop.example/unsubscribe?who={{ customer }}\n"
)
# sizes on the wire
PARAGRAPH_BYTES, OTHER_BYTES = 474, 894
USUAL_BYTES = 4200
CHUNK_SIZE = 500


def definition(size, tracked=True):
    times = max(0, round((size - OTHER_BYTES) / PARAGRAPH_BYTES))
    html, text = (part.replace("range(7)", f"range({times})") for part in (HTML, TEXT))
    return {
        "name": "Benchmark",
        "sender": {"name": "The Shop", "email": "news@shop.example"},
        "content": {"subject": "{{ name }}, autumn is here", "html": html, "text": text},
        "settings": {} if tracked else {"tracking": {"opens": False, "clicks": False}},
    }


def audience(n):
    line = '{"email":"user%d@example.com","name":"Customer %d","product":"scarves","city":"Bergen","customer":"%08x","note":"Bye!"}\n'
    return "".join(line % (i, i, i * 2654435761 % 2**32) for i in range(n)).encode()


def wire(port, n, size, sessions=SESSIONS, policy=()):
    """smtp-source to the sink: a sender that neither renders nor records."""
    command = [*policy, "smtp-source", "-s", str(sessions), "-m", str(n), "-l", str(size), "-d"]
    seconds, cpu = run([*command, "-f", "news@shop.example", "-t", "user@example.com", f"127.0.0.1:{port}"])
    return {"per_s": n / seconds, "cpu_s_per_1000": cpu / n * 1000}


def bare(port, n, size, sessions=SESSIONS):
    """A sender that pipelines like the daemon, but renders and records nothing."""
    seconds, cpu = run([*BATCH, str(BUILT / "examples/bare_sender"), f"127.0.0.1:{port}", str(n), str(size), str(sessions)])
    return {"per_s": n / seconds, "cpu_s_per_1000": cpu / n * 1000}


def prepared(daemon, n, size=USUAL_BYTES, tracked=True):
    """Prepares a delivery. Returns its id, its digest and the figures of upload and preparation."""
    body, figures = audience(n), {}
    delivery = json.loads(daemon.ask("POST", "/deliveries", definition(size, tracked)))["id"]
    began = time.monotonic()
    daemon.ask("PUT", f"/deliveries/{delivery}/audience", body, "application/x-ndjson")
    figures["upload_s"] = time.monotonic() - began
    figures["upload_per_s"] = n / figures["upload_s"]
    began, cpu = time.monotonic(), daemon.cpu_s()
    daemon.ask("POST", f"/deliveries/{delivery}/prepare", {})
    state = until("prepared", lambda: settled(daemon, delivery, ("prepared", "preparation_failed")), LIMIT_S)
    figures["prepare_s"] = time.monotonic() - began
    figures["prepare_per_s"] = n / figures["prepare_s"]
    figures["prepare_per_cpu_s"] = n / max(daemon.cpu_s() - cpu, 1e-3)
    view = daemon.view(f"/deliveries/{delivery}")
    if state != "prepared":
        raise SystemExit(f"not prepared: {view['checks']}")
    return delivery, view["plan"]["digest"], figures


def settled(daemon, delivery, states):
    state = daemon.view(f"/deliveries/{delivery}/progress")["state"]
    return state if state in states else None


def send(daemons, redis, delivery, digest, n):
    """Sends a delivery. The time runs from the confirmation to the last record."""
    cpu = [part.cpu_s() for part in daemons], redis.cpu_s()
    began = time.monotonic()
    daemons[0].ask("POST", f"/deliveries/{delivery}/confirm", {"digest": digest})
    until("finished", lambda: settled(daemons[0], delivery, ("finished",)), LIMIT_S, 0.05)
    seconds = time.monotonic() - began
    counts = daemons[0].view(f"/deliveries/{delivery}")["counts"]
    if counts["sent"] != n:
        raise SystemExit(f"not all are sent: {counts}")
    spent = sum(part.cpu_s() - before for part, before in zip(daemons, cpu[0])), redis.cpu_s() - cpu[1]
    return {
        "per_s": n / seconds,
        "cpu_s_per_1000": sum(spent) / n * 1000,
        "daemon_cpu_s_per_1000": spent[0] / n * 1000,
        "redis_cpu_s_per_1000": spent[1] / n * 1000,
    }


def us(port, n, daemons=1, fsync="always", more="", size=USUAL_BYTES, tracked=True):
    """The daemon, end to end."""
    with Redis(fsync) as redis:
        running = [Daemon(redis, port, more) for _ in range(daemons)]
        try:
            empty = redis.used_bytes()
            delivery, digest, figures = prepared(running[0], n, size, tracked)
            figures["bytes_on_the_wire"] = len(running[0].ask("GET", f"/deliveries/{delivery}/recipients/0/preview"))
            figures["redis_bytes_each_prepared"] = (redis.used_bytes() - empty) / n
            figures["daemon_peak_mb_prepared"] = running[0].peak_mb()
            figures |= send(running, redis, delivery, digest, n)
            figures["redis_bytes_each"] = (redis.used_bytes() - empty) / n
            figures |= statistics_of(running[0], redis, delivery, n)
            began = time.monotonic()
            lines = running[0].ask("GET", f"/deliveries/{delivery}/log/export?format=ndjson").count(b"\n")
            figures["export_per_s"] = n / (time.monotonic() - began)
            if lines != n:
                raise SystemExit(f"{lines} lines of log for {n}")
            figures["daemon_peak_mb"] = max(daemon.peak_mb() for daemon in running)
            return figures
        finally:
            for daemon in running:
                daemon.__exit__()


def statistics_of(daemon, redis, delivery, n):
    """The time of a request for the counts, and the time to count every record again.

No request counts again; only the end of a delivery and a task do."""
    began = time.monotonic()
    daemon.view(f"/deliveries/{delivery}/progress")
    asked = time.monotonic() - began
    command = [str(BUILT / "examples/recount"), redis.url, delivery, str(n), str(CHUNK_SIZE)]
    counted = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=LIMIT_S).stdout)
    return {"statistics_s": asked, "recount_s": counted["seconds"]}


def first_connection(port, times=24):
    """An idle daemon: the time from the request to confirm to the connection at the relay."""
    with Redis() as redis, Door(port) as door, Daemon(redis, door.port, relay(door.port, idle_ms=100)) as daemon:
        ready = [prepared(daemon, 10)[:2] for _ in range(times)]
        time.sleep(3)
        waits, answers = [], []
        for delivery, digest in ready:
            door.came.clear()
            began = time.monotonic()
            daemon.ask("POST", f"/deliveries/{delivery}/confirm", {"digest": digest})
            answers.append((time.monotonic() - began) * 1000)
            until("finished", lambda: settled(daemon, delivery, ("finished",)))
            waits.append((door.came[0] - began) * 1000)
            # after this pause the connections of this delivery are closed
            time.sleep(0.7)
        return [{"ms": wait, "confirmation_answered_ms": answer} for wait, answer in zip(waits, answers)]


def network(port, size, round_trip_ms=20, n=500):
    """Round trips per message on one connection, as if all time were spent in round trips."""

    def trips(figures):
        return 1000 / figures["per_s"] / round_trip_ms

    with Delay(port, round_trip_ms) as far:
        # One command at a time takes four round trips per message, so fewer messages are sent.
        few = n // 4
        return {
            "us": trips(us(far.port, n, more=relay(far.port, connections=1, messages_per_connection=n))),
            "bare, pipelined": trips(bare(far.port, n, size, 1)),
            "smtp-source, one command at a time": trips(wire(far.port, few, size, 1)),
        }


def idle(port, seconds=20):
    """The CPU time of a daemon that has nothing to do."""
    with Redis() as redis, Daemon(redis, port) as daemon:
        time.sleep(5)
        cpu = daemon.cpu_s(), redis.cpu_s()
        time.sleep(seconds)
        return {"daemon_share_of_a_core": (daemon.cpu_s() - cpu[0]) / seconds, "redis_share_of_a_core": (redis.cpu_s() - cpu[1]) / seconds}
