"""Enqueues tasks, starts a worker and waits for all results: `celery_run.py MESSAGES`.

Prints the seconds that the sending took."""

import json
import os
import subprocess
import sys
import time

import redis
from celery_app import app, send

messages = int(sys.argv[1])
store = redis.Redis.from_url(os.environ["BENCH_REDIS"])
with app.producer_pool.acquire(block=True) as producer:
    for i in range(messages):
        send.apply_async((f"user{i}@example.com", f"Customer {i}"), producer=producer)
command = [sys.executable, "-m", "celery", "-A", "celery_app", "worker", "-c", "8", "--without-gossip", "--without-mingle", "-l", "ERROR"]
worker = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
results = lambda: sum(1 for _ in store.scan_iter("celery-task-meta-*", 1000))
while results() == 0:
    time.sleep(0.01)
began = time.monotonic()
while results() < messages:
    time.sleep(0.2)
seconds = time.monotonic() - began
worker.terminate()
worker.wait()
print(json.dumps({"seconds": seconds}))
