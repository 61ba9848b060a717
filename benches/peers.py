"""The peers: they send much the same mail and record one result for each recipient.

The packages of BullMQ and Celery come from npm and PyPI, into target/bench."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

from parts import BATCH, BUILT, LIMIT_S, ROOT, Delay, Redis

HERE = pathlib.Path(__file__).resolve().parent / "peers"
PLACE = ROOT / "target/bench"
LETTRES_CONNECTIONS = 20
MESSAGES = {"bullmq": 4000, "celery": 1500, "naive apalis": 4000}


def figures(name, command, messages=None, **more):
    messages = messages or MESSAGES[name]
    before = os.times()
    out = subprocess.run([*BATCH, *command], check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S, **more).stdout
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    seconds = json.loads(out.splitlines()[-1])["seconds"]
    return {"per_s": messages / seconds, "cpu_s_per_1000": cpu / messages * 1000}


def bullmq(redis, port, size):
    place = PLACE / "bullmq"
    if not (place / "node_modules").exists():
        shutil.copytree(HERE, place, dirs_exist_ok=True)
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund"], cwd=place, check=True)
    shutil.copy(HERE / "bullmq.mjs", place)
    return figures("bullmq", ["node", "bullmq.mjs", str(redis.port), str(port), str(MESSAGES["bullmq"]), str(size)], cwd=place)


def celery(redis, port, size):
    python = PLACE / "celery/bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", PLACE / "celery"], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "celery[redis]"], check=True)
    settings = {"BENCH_REDIS": redis.url + "/0", "BENCH_SMTP_PORT": str(port), "BENCH_SIZE": str(size)}
    command = [str(python), "celery_run.py", str(MESSAGES["celery"])]
    return figures("celery", command, cwd=HERE, env=os.environ | settings)


def naive_apalis(redis, port, size, messages=MESSAGES["naive apalis"]):
    program = BUILT / "examples/naive_apalis"
    return figures("naive apalis", [program, redis.url, str(port), str(messages), str(size)], messages)


def lettre_far_away(port, size, round_trip_ms=20):
    """Round trips per message of lettre's pool, with which naive apalis sends.

The calculation assumes that all time is spent in round trips."""
    with Redis() as redis, Delay(port, round_trip_ms) as far:
        per_s = naive_apalis(redis, far.port, size, 1000)["per_s"]
        return {"lettre's pool": LETTRES_CONNECTIONS * 1000 / per_s / round_trip_ms}


ALL = {"bullmq": bullmq, "celery": celery, "naive apalis": naive_apalis}
