"""The processes of the benchmark: Redis, an SMTP sink, the daemon. Those with a folder remove it at their end."""

import json
import os
import pathlib
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILT = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"), "dist")
LIMIT_S = 1800
TICKS = os.sysconf("SC_CLK_TCK")
SESSIONS = 20
# The scheduling policy of the daemon in systemd/versand.service. Peers and bare senders run with it,
# too. Redis and the sink do not. The wire has a row with the policy and one without.
BATCH = ["chrt", "--batch", "0"]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def until(what, probe, limit_s=60, pause_s=0.02):
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        found = probe()
        if found:
            return found
        time.sleep(pause_s)
    raise SystemExit(f"{what}: not within {limit_s} s")


def listens(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def cpu_s(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def status_kib(pid, name):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise SystemExit(f"{name} is not in /proc/{pid}/status")


class Part:
    """A process that ends with its `with` block."""

    def __init__(self, command, **more):
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, **more)
        self.pid = self.process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def cpu_s(self):
        return cpu_s(self.pid)


class Sink(Part):
    """smtp-sink of Postfix: accepts every message and stores none."""

    def __init__(self):
        self.port = free_port()
        drop = ["-u", "nobody"] if os.geteuid() == 0 else []
        super().__init__(["smtp-sink", *drop, f"127.0.0.1:{self.port}", "1000"], stderr=subprocess.DEVNULL)
        until("smtp-sink", lambda: listens(self.port))


class Delay(Part):
    """A proxy in front of a port that adds a round trip of some milliseconds."""

    def __init__(self, port, round_trip_ms):
        self.port = free_port()
        program = str(pathlib.Path(__file__).with_name("delay.py"))
        super().__init__([sys.executable, program, str(self.port), str(port), str(round_trip_ms / 2)])
        until("the delaying proxy", lambda: listens(self.port))


class Door:
    """Passes connections on to a port, and notes when each one came in."""

    def __init__(self, port):
        self.behind, self.came = port, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.wait, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def wait(self):
        while True:
            try:
                front, _ = self.listener.accept()
            except OSError:
                return
            self.came.append(time.monotonic())
            back = socket.create_connection(("127.0.0.1", self.behind))
            for source, sink in ((front, back), (back, front)):
                sink.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self.carry, args=(source, sink), daemon=True).start()

    @staticmethod
    def carry(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


class Redis(Part):
    def __init__(self, fsync="always", under=(), **more):
        self.folder = tempfile.mkdtemp(prefix="versand-bench-")
        self.port = free_port()
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", self.folder, "--save", ""]
        options += ["--appendonly", "yes", "--appendfsync", fsync]
        super().__init__([*under, "redis-server", *options], stdout=subprocess.DEVNULL, **more)
        self.url = f"redis://127.0.0.1:{self.port}"
        until("redis-server", lambda: listens(self.port))

    def __exit__(self, *more):
        super().__exit__(*more)
        shutil.rmtree(self.folder)

    def used_bytes(self):
        with socket.create_connection(("127.0.0.1", self.port)) as s:
            s.sendall(b"INFO memory\r\nQUIT\r\n")
            text = b"".join(iter(lambda: s.recv(65536), b"")).decode()
        return int(next(line for line in text.splitlines() if line.startswith("used_memory:")).split(":")[1])


class Daemon(Part):
    def __init__(self, redis, port, more=""):
        self.folder = tempfile.mkdtemp(prefix="versand-bench-")
        listen, self.public = free_port(), free_port()
        settings = pathlib.Path(self.folder, "bench.toml")
        if "[relay]" not in more:
            more += f'\n[relay]\nhost = "127.0.0.1"\nport = {port}\n'
        settings.write_text(
            f"""[server]
listen = "127.0.0.1:{listen}"
connections_per_address = 1000
state_dir = "{self.folder}/state"
[public]
listen = "127.0.0.1:{self.public}"
[redis]
url = "{redis.url}"
[log]
level = "error"
{more}
"""
        )
        self.url = f"http://127.0.0.1:{listen}"
        super().__init__([*BATCH, str(BUILT / "versand"), "serve", "--config", str(settings)])
        until("the daemon", lambda: listens(listen) and self.ready())
        self.token = pathlib.Path(self.folder, "state/admin.token").read_text().strip()

    def __exit__(self, *more):
        super().__exit__(*more)
        shutil.rmtree(self.folder)

    def ready(self):
        try:
            return urllib.request.urlopen(self.url + "/readyz", timeout=5).status == 200
        except OSError:
            return False

    def ask(self, method, path, body=None, kind="application/json"):
        body = json.dumps(body).encode() if body is not None and kind == "application/json" else body
        request = urllib.request.Request(self.url + "/api/v1" + path, body, method=method)
        request.add_header("Authorization", f"Bearer {self.token}")
        request.add_header("Content-Type", kind)
        with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
            return answer.read()

    def view(self, path):
        return json.loads(self.ask("GET", path))

    def peak_mb(self):
        return status_kib(self.pid, "VmHWM") / 1024


def relay(port, **settings):
    """The relay section of the daemon's settings, with `settings` added."""
    lines = [f"{name} = {value}" for name, value in settings.items()]
    return "\n".join(["[relay]", 'host = "127.0.0.1"', f"port = {port}", *lines, ""])


def run(command, **more):
    """Runs a command to its end. Returns wall and CPU seconds."""
    began = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=LIMIT_S, **more)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - began, spent
