"""The cost of recording a hit before its answer, compared with an endpoint that records nothing."""

import email
import re
import subprocess

from parts import BATCH, BUILT, Daemon, Part, Redis, free_port, listens, until
from rows import prepared, settled

# enough recipients that none reaches the limit of stored hits
RECIPIENTS, SECONDS = 3000, 4
# visitors at a time; by default the daemon serves a thousand connections, and 200 of one address
VISITORS = (64, 256, 900)


def load(port, paths, visitors):
    command = [str(BUILT / "examples/hits"), "load", f"127.0.0.1:{port}", str(SECONDS), str(visitors)]
    return float(subprocess.run(command, input="\n".join(paths), text=True, check=True, capture_output=True).stdout)


def pixels(daemon, delivery):
    """Reads the path of each recipient's open pixel from the message."""
    for number in range(RECIPIENTS):
        message = email.message_from_bytes(daemon.ask("GET", f"/deliveries/{delivery}/recipients/{number}/preview"))
        html = next(part for part in message.walk() if part.get_content_type() == "text/html")
        yield re.search(rb"/o/[\w-]+", html.get_payload(decode=True)).group().decode()


def hits(sink, repetitions):
    with Redis() as redis, Daemon(redis, sink) as daemon:
        delivery, digest, _ = prepared(daemon, RECIPIENTS)
        daemon.ask("POST", f"/deliveries/{delivery}/confirm", {"digest": digest})
        until("sent", lambda: settled(daemon, delivery, ("finished",)))
        paths, port = list(pixels(daemon, delivery)), free_port()
        with Part([*BATCH, str(BUILT / "examples/hits"), "bare", str(port)]):
            until("the bare endpoint", lambda: listens(port))
            for visitors in VISITORS * repetitions:
                cpu = daemon.cpu_s() + redis.cpu_s()
                recorded = load(daemon.public, paths, visitors)
                spent = daemon.cpu_s() + redis.cpu_s() - cpu
                answer = {"recorded_per_s": recorded, "cpu_us_each": spent / recorded / SECONDS * 1e6}
                nothing = load(port, paths, visitors)
                yield visitors, answer | {"bare_per_s": nothing, "ratio": recorded / nothing}
