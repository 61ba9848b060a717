"""The time from the due instant of a delivery to its first connection."""

import concurrent.futures
import datetime
import json
import time

from parts import Daemon, Door, Redis, relay, until
from rows import audience, definition, settled

APART_S = 2


def at(seconds):
    """A schedule for an instant in Unix seconds."""
    local = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    return {"type": "at", "at": local, "zone": "UTC"}


def scheduled(daemon, due, n=10):
    body = definition(1) | {"schedule": at(due)}
    delivery = json.loads(daemon.ask("POST", "/deliveries", body))["id"]
    daemon.ask("PUT", f"/deliveries/{delivery}/audience", audience(n), "application/x-ndjson")
    daemon.ask("POST", f"/deliveries/{delivery}/prepare", {})
    until("prepared", lambda: settled(daemon, delivery, ("prepared",)))
    digest = daemon.view(f"/deliveries/{delivery}")["plan"]["digest"]
    daemon.ask("POST", f"/deliveries/{delivery}/confirm", {"digest": digest})
    return delivery


def due_to_connection(port, waiting, times=20):
    """Measures deliveries that are due one after the other, each on a whole second.

Meanwhile `waiting` other deliveries are scheduled for tomorrow."""
    with Redis() as redis, Door(port) as door, Daemon(redis, door.port, relay(door.port, idle_ms=100)) as daemon:
        tomorrow = int(time.time()) + 86_400
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: scheduled(daemon, tomorrow, 1), range(waiting)))
        first = int(time.time()) + 10
        deliveries = [scheduled(daemon, first + APART_S * i) for i in range(times)]
        if time.time() > first:
            raise SystemExit("the first one was due before all were scheduled")
        ahead = time.time() - time.monotonic()
        waits = []
        for i, delivery in enumerate(deliveries):
            door.came.clear()
            until("finished", lambda: settled(daemon, delivery, ("finished",)))
            waits.append((door.came[0] + ahead - first - APART_S * i) * 1000)
            # after this pause the connections of this delivery are closed
            time.sleep(0.5)
        return [{"ms": wait} for wait in waits]
