"""Describes the machine on which the figures are measured."""

import os
import pathlib
import platform
import re
import statistics
import subprocess
import tempfile
import time

from parts import ROOT


def said(*command):
    """The output of a command, or nothing if the command is missing."""
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30).stdout.strip()
    except OSError:
        return ""


def found(pattern, text):
    match = re.search(pattern, text, re.MULTILINE)
    return match.group(1).strip() if match else "unknown"


def fsync_ms(times=100):
    """The median time to append and sync four kilobytes in the folder where Redis keeps its log."""
    spent = []
    with tempfile.NamedTemporaryFile(prefix="versand-bench-") as file:
        for _ in range(times):
            file.write(bytes(4096))
            file.flush()
            began = time.monotonic()
            os.fdatasync(file.fileno())
            spent.append((time.monotonic() - began) * 1000)
    return round(statistics.median(spent), 2)


def describe():
    memory = int(found(r"^MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text()))
    return {
        "cores": os.cpu_count(),
        "processor": found(r"^model name\s*:(.*)", pathlib.Path("/proc/cpuinfo").read_text()),
        "memory_gb": round(memory / 1e6, 1),
        "fsync_ms": fsync_ms(),
        "kernel": ".".join(platform.release().split(".")[:2]),
        "redis": found(r"v=(\S+)", said("redis-server", "--version")),
        "postfix": found(r"mail_version = (\S+)", said("postconf", "-d", "mail_version")),
        "revision": said("git", "describe", "--always", "--dirty"),
        "date": time.strftime("%Y-%m-%d"),
    }


def line(machine):
    return (
        f"{machine['cores']} cores of {machine['processor']}, {machine['memory_gb']} GB, fsync {machine['fsync_ms']} ms, "
        f"Linux {machine['kernel']}, Redis {machine['redis']}, Postfix {machine['postfix']}; {machine['revision']}, {machine['date']}"
    )
