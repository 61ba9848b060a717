"""The cost of tracking: statistics of a full tracking log, bytes in Redis, the history of an address."""

import json
import subprocess
import time

from parts import BUILT, LIMIT_S, Daemon, Redis, until
from rows import CHUNK_SIZE, prepared, send, settled

DELIVERIES = 1000
HITS_IN_A_BLOCK = 4096
# the bytes of the blocks of the tracking log
LOG_BYTES = "local n = 0 for block = 0, ARGV[1] do n = n + (redis.call('MEMORY', 'USAGE', ARGV[2] .. block) or 0) end return n"


def log_bytes(redis, delivery, hits):
    prefix = f"versand:{{{delivery}}}:hits:"
    command = ["redis-cli", "-p", str(redis.port), "EVAL", LOG_BYTES, "0", str(hits // HITS_IN_A_BLOCK), prefix]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, timeout=LIMIT_S).stdout)


def statistics(port, n, times=5):
    """All recipients have opened and clicked: the time to compute the statistics, and the bytes in Redis.

The bytes of the tracking log itself do not count."""
    with Redis() as redis, Daemon(redis, port) as daemon:
        delivery, digest, _ = prepared(daemon, n)
        send([daemon], redis, delivery, digest, n)
        generation = daemon.view(f"/deliveries/{delivery}")["plan"]["generation"]
        before = redis.used_bytes()
        command = [str(BUILT / "examples/fill_tracking_log"), redis.url, delivery, str(generation), str(n), str(CHUNK_SIZE)]
        subprocess.run(command, check=True, timeout=LIMIT_S)
        each = (redis.used_bytes() - before - log_bytes(redis, delivery, 2 * n)) / n
        for _ in range(times):
            began, cpu = time.monotonic(), daemon.cpu_s()
            figures = json.loads(daemon.ask("POST", f"/deliveries/{delivery}/statistics", {}))
            seconds = time.monotonic() - began
            if (figures["unique_opens"], figures["unique_clicks"]) != (n, n):
                raise SystemExit(f"not all have opened and clicked: {figures}")
            yield {"s": seconds, "daemon_cpu_s": daemon.cpu_s() - cpu, "daemon_peak_mb": daemon.peak_mb(), "redis_bytes_each": each}


def history(port, times=9):
    """The history of an address that got a message from each of many deliveries."""
    with Redis() as redis, Daemon(redis, port) as daemon:
        for _ in range(DELIVERIES):
            delivery, digest, _ = prepared(daemon, 1)
            daemon.ask("POST", f"/deliveries/{delivery}/confirm", {"digest": digest})
        until("sent", lambda: settled(daemon, delivery, ("finished",)))
        for _ in range(times):
            began = time.monotonic()
            messages = daemon.view(f"/profiles/user0@example.com/messages?limit={DELIVERIES}")["items"]
            milliseconds = (time.monotonic() - began) * 1000
            if len(messages) != DELIVERIES:
                raise SystemExit(f"{len(messages)} messages of {DELIVERIES}")
            yield {"ms": milliseconds}
