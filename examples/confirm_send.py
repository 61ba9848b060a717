#!/usr/bin/env python3
"""Confirms a prepared delivery over the Redis queue, as an upstream system does.

Needs redis-py (pip install redis). docs/queue.md is the contract that this follows.
Prints the id of the job; with --wait also the outcome. Exit codes: 0 queued (with --wait: confirmed),
1 refused, 2 wrong arguments, 3 no outcome in time, 4 Redis or a file cannot be used.
"""

import argparse
import base64
import hashlib
import hmac
import json
import sys
import time
import uuid

import redis

QUEUE = "versand:{core:apalis:queues:list}:confirm"
ENQUEUE = """
if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('HSET', KEYS[2], 'attempts', 0, 'max_attempts', 25, 'status', 'Pending', 'idempotency_key', '',
  'queued_at', redis.call('TIME')[1])
redis.call('RPUSH', KEYS[3], ARGV[1])
return 1
"""


def base64url(octets):
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode("ascii")


def sign(claims, key):
    """A JWT (RFC 7519) signed with HMAC-SHA-256."""
    parts = [{"alg": "HS256", "typ": "JWT"}, claims]
    text = ".".join(base64url(json.dumps(part, separators=(",", ":")).encode()) for part in parts)
    signature = hmac.new(key, text.encode("ascii"), hashlib.sha256).digest()
    return f"{text}.{base64url(signature)}"


def claims_of(options):
    now = int(time.time())
    return {
        "iss": options.issuer,
        "sub": options.subject,
        "aud": options.audience,
        "iat": now,
        "exp": now + options.lifetime,
        "jti": options.token_id or str(uuid.uuid4()),
        "roles": options.role or ["start_deliveries"],
        "action": "confirm_send",
        "delivery": options.delivery,
        "digest": options.digest,
    }


def enqueue(server, job_id, payload):
    """True if the job was queued, False if one of this id is still there."""
    keys = [f"{QUEUE}:data", f"{QUEUE}:meta:{job_id}", f"{QUEUE}:active"]
    return bool(server.eval(ENQUEUE, len(keys), *keys, job_id, payload))


def outcome(server, job_id, limit):
    """The outcome, as the daemon wrote it, or None when there is none within `limit` seconds."""
    end = time.monotonic() + limit
    while True:
        text = server.get(f"versand:outcome:{job_id}")
        if text is not None:
            return json.loads(text)
        if time.monotonic() >= end:
            return None
        time.sleep(0.05)


def arguments():
    parser = argparse.ArgumentParser(description="Confirm a prepared delivery over the Redis queue.")
    parser.add_argument("--redis", required=True, metavar="URL",
                        help="redis://host:6379, rediss://..., or redis+unix:///path/to/socket")
    parser.add_argument("--user", help="the user of Redis (the default user)")
    parser.add_argument("--password-file", help="its first line is the password of that user")
    parser.add_argument("--delivery", required=True, help="id of the prepared delivery")
    parser.add_argument("--digest", required=True, help="digest that its preparation answered with")
    parser.add_argument("--issuer", required=True, help="the issuer that the daemon knows the key of")
    parser.add_argument("--subject", required=True, help="who confirms it: appears in the audit log")
    parser.add_argument("--audience", default="versand", help="the daemon's auth.issuer_audience")
    parser.add_argument("--key-file", required=True, help="the secret, as it is in the daemon's key_file")
    parser.add_argument("--role", action="append", help="a role to claim, repeatable (start_deliveries)")
    parser.add_argument("--lifetime", type=int, default=600, metavar="SECONDS", help="of the token (600)")
    parser.add_argument("--job-id", help="id of the job; the same one again is queued once (confirm:<random>)")
    parser.add_argument("--token-id", help="jti of the token; a token is good for one confirmation (random)")
    parser.add_argument("--wait", type=float, metavar="SECONDS", help="wait so long for the outcome")
    return parser.parse_args()


def main():
    options = arguments()
    job_id = options.job_id or f"confirm:{uuid.uuid4()}"
    # redis-py names the scheme of a socket differently.
    url = options.redis.replace("redis+unix://", "unix://", 1)
    try:
        with open(options.key_file, "rb") as file:
            key = file.read().strip()  # as the daemon does
        job = {"delivery": options.delivery, "digest": options.digest, "token": sign(claims_of(options), key)}
        password = None
        if options.password_file:
            with open(options.password_file, encoding="utf-8") as file:
                password = file.readline().rstrip("\r\n")
        server = redis.Redis.from_url(url, username=options.user, password=password)
        if not enqueue(server, job_id, json.dumps(job)):
            print("a job of this id is there already", file=sys.stderr)
        print(job_id, flush=True)
        if options.wait is None:
            return 0
        verdict = outcome(server, job_id, options.wait)
    except (OSError, redis.RedisError, ValueError) as error:
        print(error, file=sys.stderr)
        return 4
    if verdict is None:
        print("no outcome in time", file=sys.stderr)
        return 3
    print(json.dumps(verdict), flush=True)
    return 0 if verdict.get("status") == "confirmed" else 1


if __name__ == "__main__":
    sys.exit(main())
